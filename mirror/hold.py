"""Holds: after a rollback the nightly sync must not bring the bad release back before somebody has said so.

A hold is a member of log records, written by the rollback and carried from each record to the next (`log.draft`), so the head alone
tells of it, and no record can come between a rollback and its hold. A sync with --release leaves it out of what it appends; where
it has nothing else to append, a record of kind `hold` says so.

    if hold := hold_of(head):
        heed(hold, "/backup/www", "mirror sync site /backup/www")
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, NoReturn

from mirror import log
from mirror.envelope import write_time
from mirror.errors import InTheWayError
from mirror.events import Job, Notice
from mirror.store import WritableStore


class Hold(NamedTuple):
    """of: the snapshot that was brought back; record: the one that began the hold; since: when that was."""

    of: int
    record: int
    since: datetime

    def __str__(self) -> str:
        when = self.since.astimezone().strftime("%Y-%m-%dT%H:%M:%S")
        return f"it is held since {when}, when it was rolled back to snapshot {self.of} (record {self.record})"


def hold_of(head: log.Record | None) -> Hold | None:
    """The hold that is in force as of a head."""
    member = head.body.get("hold") if head else None
    return Hold(member["of"], member["record"], datetime.fromisoformat(member["since"])) if member else None


def begin(of: int, head: log.Record, since: datetime) -> dict[str, Any]:
    """The member of the record after `head` that begins a hold."""
    return {"of": of, "record": head.number + 1, "since": write_time(since)}


def heed(hold: Hold, where: str, command: str) -> NoReturn:
    """Stop a sync. command: as it was given."""
    raise InTheWayError(
        "cannot sync into",
        where=where,
        why=str(hold),
        hint=f"when the site is right again, go on with: {command} --release",
        kind="held",
    )


def append(store: WritableStore, uuid: str, head: log.Record, member: dict[str, Any] | None) -> log.Record | None:
    """Append a record that begins a hold, or (None) ends the one in force, and changes nothing else; None when another run appended
    one first."""
    result = log.append(store, log.draft(log.HOLD, uuid, head, head.live, hold=member))
    return result if isinstance(result, log.Record) else None


@dataclass
class Heeding:
    """What one sync does about holds. where, command: for messages; release: whether it may end one: just the one that it met
    first."""

    store: WritableStore
    uuid: str
    job: Job
    where: str
    command: str
    release_it: bool
    dry_run: bool
    released: Hold | None = None  # the hold that this run ends

    def heed(self, head: log.Record | None) -> None:
        """Stop at a hold, or note that this run ends it."""
        hold = hold_of(head)
        if hold is not None and self.dry_run and not self.release_it:
            self.job.say(Notice("held", f"a sync would stop here (exit 11): {hold}; --release goes on"))
        elif hold is not None and not (self.release_it and self.released in (None, hold)):
            heed(hold, self.where, self.command)
        self.released = hold

    def release(self, head: log.Record) -> log.Record | None:
        """The hold that this run ends is over though nothing else changed; the head then, None when another run was faster."""
        record = append(self.store, self.uuid, head, None) if self.released else head
        if record is not None and self.released:
            self.say()
            log.put_hint(self.store, record)
        return record

    def say(self) -> None:
        """That it is over, if one is."""
        if self.released:
            text = f"the hold is over that began when the target was rolled back to snapshot {self.released.of}"
            self.job.say(Notice("released", text))

    @property
    def members(self) -> dict[str, None]:
        """What the record of this run says of it."""
        return {"hold": None} if self.released else {}
