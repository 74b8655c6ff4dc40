"""What a sync or a verify did, in numbers: their reports. Values in, values out."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mirror.events import Problem, ProblemReport
from mirror.plan import CHANGED, DELETED, DESCRIBED, MOVED, NEW

if TYPE_CHECKING:
    from mirror.commit import Outcome
    from mirror.survey import Survey
    from mirror.transfer.send import Sent


@dataclass
class SyncReport(ProblemReport):
    """What a sync did. snapshot: its number, 0 when none was made; waits: of the import that another machine has not published, 0
    when there is none. bytes_read: of the site; bytes_new: plain, not in the target
    before; bytes_stored: of packs; bytes_uploaded: everything put; bytes_reused: read and found in the target;
    bytes_history: of packs, and of files that a bucket keeps whole, for what a tree displaced; bytes_history_total: of all of them,
    None where this host does not know;
    bytes_displaced: in a dry run, plain, of what a tree would displace and no pack has; bytes_free: at the target, None where it
    does not say. requests_planned: in a dry run, on an object service. forgotten: older snapshots, for no history is kept.
    kept: paths that left the site and stay. rules: paths left out by each.
    """

    source: str = ""
    target: str = ""
    site: str = ""
    dry_run: bool = False
    snapshot: int = 0
    waits: int = 0
    parent: int = 0
    entries: int = 0
    bytes: int = 0
    added: int = 0
    changed: int = 0
    described: int = 0
    moved: int = 0
    deleted: int = 0
    kept: int = 0
    same: int = 0
    protected: int = 0
    incomplete: bool = False
    files_read: int = 0
    files_resumed: int = 0
    bytes_read: int = 0
    bytes_new: int = 0
    bytes_stored: int = 0
    bytes_uploaded: int = 0
    bytes_reused: int = 0
    bytes_history: int = 0
    bytes_history_total: int | None = None
    bytes_displaced: int = 0
    bytes_free: int | None = None
    forgotten: int = 0
    attempts: int = 1
    seconds: float = 0.0
    requests: dict[str, int] = field(default_factory=dict)
    requests_planned: dict[str, int] = field(default_factory=dict)
    rules: dict[str, int] = field(default_factory=dict)
    problem_count: int = 0
    problems: list[Problem] = field(default_factory=list)

    def looked(self, survey: Survey, parent: int) -> None:
        """Take in what a survey found against snapshot `parent`."""
        counts = survey.counts
        self.parent = parent
        self.added, self.changed, self.described = counts.added, counts.changed, counts.described
        self.deleted, self.same, self.protected = counts.deleted, counts.same, counts.protected
        self.incomplete, self.rules = survey.incomplete, survey.rules
        if survey.never_delete:
            self.kept, self.deleted = counts.deleted, 0

    def tally(self, outcome: Outcome, sent: Sent) -> None:
        """Take in what a transfer and the merge after it made of that."""
        totals = outcome.totals
        self.added, self.changed, self.deleted = totals[NEW], totals[CHANGED], totals[DELETED]
        self.moved, self.described = totals[MOVED], totals[DESCRIBED]
        self.same = outcome.root.entries - totals[NEW] - totals[CHANGED] - totals[MOVED] - totals[DESCRIBED]
        self.kept = max(self.kept - totals[DELETED] - totals[MOVED], 0)
        self.entries, self.bytes = outcome.root.entries, outcome.root.plain
        self.files_resumed = sent.resumed
        self.bytes_read += sent.read
        self.bytes_new += sent.new_bytes
        self.bytes_stored += sent.stored
        self.bytes_reused = max(self.bytes_read - self.bytes_new, 0)


@dataclass
class VerifyReport(ProblemReport):
    """What was looked at and what is wrong. finished: not stopped by --max-duration. packs: that the index lists; checked: read
    now; resumed: found right by a run that was stopped; unlisted: there, but in no fragment. compared: paths of `against`;
    described: that differ from it in times, mode or owner alone. live_files: of a tree's live folder.
    problems: the first 10,000 of problem_count."""

    target: str = ""
    site: str = ""
    quick: bool = False
    part: str = ""
    against: str = ""
    finished: bool = True
    records: int = 0
    snapshots: int = 0
    objects: int = 0
    fragments: int = 0
    packs: int = 0
    packs_checked: int = 0
    packs_resumed: int = 0
    packs_unlisted: int = 0
    bytes_read: int = 0
    compared: int = 0
    described: int = 0
    files_damaged: int = 0
    live_files: int = 0
    seconds: float = 0.0
    requests: dict[str, int] = field(default_factory=dict)
    problem_count: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0 where all is right; 4 for damage and differences; 10 when --max-duration ended a run that had found nothing yet."""
        return super().exit_code or (0 if self.finished else 10)
