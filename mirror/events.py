"""What a run says while it runs: one stream of small frozen events, and the problems of single paths.

A verb gets a `Job` and calls `job.say(Event)`; the job stamps the event (job id, site, number, time, phase) and hands it to
its listeners, in the calling thread, in order. Who renders them (bar, JSON Lines, log file) is no business of this module.
docs/events.md lists every event, field and kind; a test compares it with this file.

    >>> seen = []
    >>> Job("sync", listeners=[seen.append]).say(PhaseBegan("scan"))
    >>> seen[0].number, seen[0].event.phase
    (1, 'scan')
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from msgspec import Struct

from mirror.errors import worst_exit

VERSION = 1
PROBLEMS_KEPT = 10_000  # of a report

# Kinds of item problems: the path goes on existing or not, the run goes on. 24 for what moved under our feet, else 23.
PROBLEM_KINDS = {
    "unreadable": 23,  # a file, link or its metadata could not be read
    "incomplete": 23,  # a folder could not be listed: nothing is deleted in this run
    "extra": 0,  # a live tree has it, no snapshot does: other people's files are left alone
    "special": 0,  # fifo, socket, device: left out, as documented
    "skipped": 0,  # a link, and --symlinks skip was asked for
    "link": 23,  # a link that --symlinks follow cannot follow: it leads out of the site, round in a circle, or nowhere
    "name": 23,  # a path that no manifest may hold, or that cannot exist at the destination
    "vanished": 24,  # listed, then gone
    "drift": 24,  # of a tree: the live file is not what the last snapshot says; it is kept aside
    "changed": 24,  # changed while it was read; what was read is kept
    "unwritable": 23,  # a destination path could not be written
    "metadata": 23,  # owner, mode or times could not be set, and --strict-metadata was asked for
    "damaged": 4,  # content in the target is not what was written
    "public": 4,  # everybody can fetch what is in `.mirror/` of a tree
    "differs": 4,  # --against: source and snapshot are not the same
}


class Problem(Struct, frozen=True):
    """What went wrong with one path. path: as shown to people (`keys.show`); kind: of PROBLEM_KINDS; hint: the next step."""

    path: str
    kind: str
    why: str
    hint: str = ""

    @property
    def exit_code(self) -> int:
        return PROBLEM_KINDS[self.kind]

    def __str__(self) -> str:
        return f"{self.path}: {self.why}" + (f"; {self.hint}" if self.hint else "")


class ProblemReport:
    """What the reports of the verbs have in common. problems: the first 10,000 of problem_count, so that a million unreadable files
    cost no memory; all were said as events."""

    problem_count: int
    problems: list[Problem]

    def __post_init__(self) -> None:
        self._codes: set[int] = set()
        self._earlier_codes: set[int] = set()
        self._earlier_count = self._earlier_kept = 0

    def add(self, problem: Problem) -> None:
        """Count a problem, and keep it while they are few."""
        self.problem_count += 1
        self._codes.add(problem.exit_code)
        if len(self.problems) < PROBLEMS_KEPT:
            self.problems.append(problem)

    def begin_own(self) -> None:
        """Problems so far are those of a run that died and was finished; what comes is this run's own."""
        self._earlier_codes |= self._codes
        self._codes.clear()
        self._earlier_count, self._earlier_kept = self.problem_count, len(self.problems)

    def forget_problems(self) -> None:
        """A new attempt begins: there are none of this run's own."""
        self.problem_count = self._earlier_count
        self._codes.clear()
        del self.problems[self._earlier_kept :]

    @property
    def own_problems(self) -> list[Problem]:
        """Those of this run's own, as far as they are kept."""
        return self.problems[self._earlier_kept :]

    @property
    def own_count(self) -> int:
        """How many problems of this run's own there are."""
        return self.problem_count - self._earlier_count

    @property
    def failed(self) -> bool:
        """Whether some items of its own failed (23): more than that files changed or went while they were read."""
        return 23 in self._codes

    @property
    def exit_code(self) -> int:
        """0, or what the problems make of the run."""
        return worst_exit((self._codes | self._earlier_codes) - {0})


class RunStarted(Struct, frozen=True):
    """The resolved ends of a run, before anything is done."""

    verb: str
    source: str
    target: str
    dry_run: bool = False


class PhaseBegan(Struct, frozen=True):
    """scan, plan, transfer, commit, read, write, check: what the run is busy with. files, bytes: what is ahead, 0 if unknown."""

    phase: str
    files: int = 0
    bytes: int = 0


class Advanced(Struct, frozen=True):
    """So much more is done in this phase: files and plain bytes since the last such event."""

    files: int = 0
    bytes: int = 0


class BatchPlanned(Struct, frozen=True):
    """A batch of work exists: its number in this run, its files and plain bytes."""

    batch: int
    files: int
    bytes: int


class BatchSent(Struct, frozen=True):
    """A worker has begun with the batch."""

    batch: int


class BatchStored(Struct, frozen=True):
    """All of the batch is durable: bytes put into the store for it."""

    batch: int
    stored: int


class BatchFailed(Struct, frozen=True):
    """The batch failed as a whole and is tried again or given up."""

    batch: int
    why: str


class Change(Struct, frozen=True):
    """One path of the plan or the outcome. symbol: + new, * changed, - deleted, = same, ! error, > moved, . described anew."""

    symbol: str
    path: str
    size: int = 0
    moved_from: str = ""


class Answered(Struct, frozen=True):
    """A visitor of a served site got an answer. url: as it was asked for; bytes: of the body; whole: it was sent to its end, or the
    visitor left."""

    method: str
    url: str
    status: int
    bytes: int = 0
    seconds: float = 0.0
    whole: bool = True


class ProblemFound(Struct, frozen=True):
    """A path had a problem; the run goes on."""

    problem: Problem


class Notice(Struct, frozen=True):
    """Something a person should know that is no problem of a path. kind is stable."""

    kind: str
    text: str


class SnapshotCommitted(Struct, frozen=True):
    """A snapshot exists: its number in the log."""

    snapshot: int


Event = (
    RunStarted
    | PhaseBegan
    | Advanced
    | BatchPlanned
    | BatchSent
    | BatchStored
    | BatchFailed
    | Change
    | Answered
    | ProblemFound
    | Notice
    | SnapshotCommitted
)

# The name of each event on the wire (JSON Lines); `summary` ends every stream and carries the report.
NAMES: dict[type[Event], str] = {
    RunStarted: "started",
    PhaseBegan: "phase",
    Advanced: "advanced",
    BatchPlanned: "batch-planned",
    BatchSent: "batch-sent",
    BatchStored: "batch-stored",
    BatchFailed: "batch-failed",
    Change: "change",
    Answered: "answered",
    ProblemFound: "problem",
    Notice: "notice",
    SnapshotCommitted: "snapshot",
}


class Stamped(Struct, frozen=True):
    """An event with its envelope. number counts from 1 within the job; time is seconds since 1970."""

    job: str
    site: str
    number: int
    time: float
    phase: str
    event: Event


Listener = Callable[[Stamped], None]


@dataclass
class Job:
    """One run of a verb. Not shared between threads: events are said by the thread that runs the verb. each_path: whether anyone
    listens for what becomes of each path (`Change`); a first sync has as many of them as files."""

    verb: str
    listeners: Sequence[Listener] = ()
    site: str = ""
    id: str = field(default_factory=lambda: os.urandom(16).hex())
    phase: str = ""
    number: int = 0
    each_path: bool = True

    def say(self, event: Event) -> None:
        """Stamp the event and hand it to every listener."""
        if type(event) is PhaseBegan:
            self.phase = event.phase
        self.number += 1
        if self.listeners:
            stamped = Stamped(self.id, self.site, self.number, time.time(), self.phase, event)
            for listener in self.listeners:
                listener(stamped)
