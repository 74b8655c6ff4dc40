"""What becomes of the single items of a publish: one item's failure is that item's failure (law 7), and is told with its path.

>>> from mirror.manifest import File
>>> told = []
>>> with Items(told.append) as items:
...     items.attempt(Step(None, File(b"a", 1, bytes(16), 0), fault="a folder of that name is there"), print)
...     items.failures, list(items.failed), told[0].why
(1, [b'a'], 'a folder of that name is there')
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from mirror.events import Problem
from mirror.keys import show
from mirror.site.live import Unexpected, is_ours
from mirror.spool import KeySorter
from mirror.steps import LEFT, Step
from mirror.transfer.down import why_not


@dataclass
class Items:
    """failed, removed: paths that could not be done, and that made room; unset: paths whose metadata could not be set as it should
    be. aside: keeps what a change has displaced and could not put back, as a phrase that says where."""

    on_problem: Callable[[Problem], None]
    aside: Callable[[bytes], str] = lambda path: LEFT
    failed: KeySorter = field(default_factory=KeySorter)
    removed: KeySorter = field(default_factory=KeySorter)
    failures: int = 0
    unset: int = 0

    def __enter__(self) -> Items:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the disk back."""
        self.failed.close()
        self.removed.close()

    def attempt(self, step: Step, change: Callable[[Step], None], hint: str = LEFT) -> None:
        """Do it, or fail this one item. hint: what to do where something else stands there. OSError when the disk is full."""
        try:
            if step.fault or is_ours(step.path):
                raise Unexpected(step.fault or "that is where the store of the tree is")
            change(step)
        except Unexpected as error:
            self.fail(step.path, "unwritable", error.why, self.aside(step.path) if error.kept else hint)
        except OSError as error:
            self.fail(step.path, *why_not(error), hint if hint != LEFT else "")

    def fail(self, path: bytes, kind: str, why: str, hint: str = "") -> None:
        """This item failed: told, and known for the snapshot."""
        self.leave(path)
        self.on_problem(Problem(show(path), kind, why, hint))

    def leave(self, path: bytes) -> None:
        """This item stays as it was, which is told in other words."""
        self.failures += 1
        self.failed.extend([path])
