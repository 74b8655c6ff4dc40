"""What a restore is to do with what it finds at its destination, and what whoever writes there gets and gives. Pure values.

The difference that a restore works with is a sync's with the ends exchanged: what the snapshot has and the destination lacks is a
Drop, what only the destination has is an item without a `before`, and the `before` of the others is what they are to be.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from mirror.events import Job, Problem
from mirror.log import Record
from mirror.manifest import Entry
from mirror.pick import Reading
from mirror.plan import Drop, Item
from mirror.site.writing import TEMPORARY
from mirror.store.wrap import Counts as Requests
from mirror.survey import Survey


@dataclass(frozen=True, slots=True)
class Intent:
    """paths: those chosen (`plain_path`), all when empty. folders: whether folders count (objects of a bucket come without).
    overwrite: always, if-newer or never. deadline: monotonic. in_place: what is there was expected."""

    paths: tuple[bytes, ...] = ()
    folders: bool = True
    delete: bool = False
    overwrite: str = "always"
    checksum: bool = False
    workers: int = 2
    deadline: float | None = None
    in_place: bool = False

    def chosen(self, path: bytes) -> bool:
        """Whether a path is among those to be restored."""
        return not self.paths or any(not each or path == each or path.startswith(each + b"/") for each in self.paths)

    def is_extra(self, item: Item) -> bool:
        """Whether the snapshot does not have what stands there."""
        path = item.entry.path
        if isinstance(item, Drop) or item.before is not None or not path or TEMPORARY.search(path):
            return False
        return self.chosen(path) and (self.folders or not path.endswith(b"/"))

    def may_replace(self, item: Item) -> bool:
        """Whether what stands there may be replaced, or described anew."""
        if isinstance(item, Drop) or item.before is None or self.overwrite == "always":
            return True
        if self.overwrite == "never":
            return False
        there, wanted = getattr(item.entry, "mtime", None), getattr(item.before, "mtime", None)
        return there is None or wanted is None or wanted > there


def wanted_of(item: Item) -> Entry | None:
    """The snapshot's entry of a planned path; None for what the snapshot does not have."""
    return item.entry if isinstance(item, Drop) else item.before


@dataclass(frozen=True, slots=True)
class Errand:
    """What is to be written, from where. plain: bytes of the files to be written. on_unset: told of what of a description could not
    be set (path, sentence); on_notice: of what a person should know."""

    reading: Reading
    record: Record
    survey: Survey
    plain: int
    job: Job
    on_problem: Callable[[Problem], None]
    on_unset: Callable[[bytes, str], None]
    on_notice: Callable[[str], None]


class Done(NamedTuple):
    """What was done. files_kept: found the same when they were read; requests: beside those of `Errand.reading`."""

    files_written: int
    files_kept: int
    bytes_written: int
    deleted: int
    requests: Requests = Requests()
