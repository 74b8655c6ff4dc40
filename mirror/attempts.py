"""What a writing run does when the ground moves under it: another attempt, or the same without its cache.

An attempt that loses the race at the log is made anew. One that misses an object may have read the log too early (a prune was
faster); when the log has not moved it is damage.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import replace
from typing import Final, Protocol, TypeVar

from mirror import log
from mirror.envelope import check_format
from mirror.errors import DamageError, InterruptedRunError, InTheWayError, NotFound, TemporaryError
from mirror.events import Job, Notice
from mirror.keys import MIRROR_KEY, record_key
from mirror.target import Target, TargetSpec

R = TypeVar("R")
_MOST: Final = 10


class Attempting(Protocol):
    """A run of which there may be several attempts."""

    @property
    def head(self) -> log.Record | None:
        """The head that the attempt at hand goes by."""
        ...

    def attempt(self, number: int) -> bool:
        """Make one; False when another run was faster. NotFound when an object is missing."""
        ...


def check_writable(target: Target, head: log.Record | None) -> None:
    """UsageError where a newer mirror has written what this one must not go on from."""
    check_format(target.info, f"{target.store.url}/{MIRROR_KEY}", "write")
    if head is not None:
        check_format(head.body, f"{target.store.url}/{record_key(head.number)}", "write")


def repeated(run: Attempting, target: Target, what: str) -> None:
    """Make attempts until one comes to its end. what: cannot be done where an object is missing, for the message.

    DamageError when something the log names is not there; InTheWayError when others were faster each time."""
    for number in range(1, _MOST + 1):
        try:
            if run.attempt(number):
                return
        except NotFound as error:
            head = log.read_head(target.store, int(target.state.fact("head") or 0))
            if head is None or run.head is None or head.digest == run.head.digest:
                raise DamageError(
                    what,
                    where=f"{target.store.url}/{error}",
                    why="it is not there, and a snapshot needs it",
                    hint="run `mirror verify`; bring that object back from a copy of this target",
                ) from error
    raise InTheWayError(
        "cannot append the snapshot", where=target.store.url, why=f"{_MOST} attempts lost to other runs", hint="try again later"
    )


def with_or_without_cache(run: Callable[[TargetSpec], R], target: TargetSpec, job: Job, hint: str) -> R:
    """The run; once more without what this host remembers when that is spoilt or has no room (law 11). hint: after Ctrl-C."""
    try:
        try:
            return run(target)
        except sqlite3.DatabaseError as error:
            text = f"what this host remembered of the target cannot be used ({error}): it is left aside"
            job.say(Notice("no-cache", text))
            return run(replace(target, cache=None))
    except KeyboardInterrupt:
        raise InterruptedRunError("interrupted", hint=hint) from None
    except sqlite3.DatabaseError as error:
        import tempfile

        raise TemporaryError(
            "cannot use the folder for temporary files",
            where=tempfile.gettempdir(),
            why=str(error),
            hint="make room there, or name another folder with TMPDIR",
            kind="disk-full",
        ) from error
