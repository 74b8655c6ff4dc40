"""`mirror rollback`: make an older snapshot the newest one again. In a tree people see it at once.

    report = rollback(TargetSpec(StoreSpec("/srv/www")), RollbackOptions(at="41"))
    report.snapshot, report.changed, report.problems

What is done is the difference of two manifests, so only what differs is moved: its content comes out of packs, or from live files
that hold the same, into drafts; then the tree is published as by a sync, and what is displaced is packed, so one can go forward
again. It is a new snapshot, which names the objects of the old one's manifest. Of layout packed nothing else is written.

With it begins a hold (hold.py): the next sync stops, lest it bring back what was just taken away.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any

from mirror import log
from mirror.attempts import check_writable, repeated, with_or_without_cache
from mirror.commit import problem_lines
from mirror.drafts import Drafts, extent
from mirror.envelope import write_time
from mirror.errors import DamageError, DeletionGuardError, TargetMissingError, UsageError
from mirror.events import Change, Job, Notice, PhaseBegan, Problem, ProblemFound, ProblemReport, RunStarted, SnapshotCommitted
from mirror.hold import append as append_hold
from mirror.hold import begin, hold_of
from mirror.keys import record_key, show
from mirror.lines import Lines
from mirror.lookup import ChunkIndex
from mirror.manifest import ChangeLine, Ref
from mirror.pick import pick
from mirror.plan import CHANGED, DELETED, DESCRIBED, MOVED, NEW, DeletionLimit
from mirror.protect import Wanted
from mirror.received import is_from_client
from mirror.site import Filter
from mirror.site.filters import Matcher
from mirror.site.live import LiveTree
from mirror.snapshot import ManifestReader, ManifestWriter
from mirror.space import Least, check_room
from mirror.store.wrap import Counts as Requests
from mirror.survey import source_key_of
from mirror.target import Target, TargetSpec, open_target
from mirror.tree import TreeRun
from mirror.unfinished import is_emptied, unfinished
from mirror.workers import Crew


@dataclass(frozen=True, slots=True)
class RollbackOptions:
    """at: which snapshot. rules: what they leave out stays as it is; none: the rules that the newest snapshot was made with; and
    delete_excluded: nothing is protected. workers: processes, 0 in this one. min_free: bytes; min_free_percent: of the whole place.
    take_over, lease: as in SyncOptions. command: how to name this run in hints."""

    at: str = ""
    dry_run: bool = False
    max_delete: DeletionLimit = DeletionLimit()
    rules: tuple[tuple[str, str], ...] = ()
    delete_excluded: bool = False
    workers: int = 2
    min_free: int | None = None
    min_free_percent: float | None = None
    wait: bool = False
    take_over: bool = False
    lease: float = 30.0
    command: str = "mirror rollback"


@dataclass
class RollbackReport(ProblemReport):
    """What a rollback did. snapshot: its number, 0 when none was made; rollback_of: the one that was brought back; parent: the one
    before. added … same: against the parent; protected: paths that differ and stay, since the rules leave them out. files_staged,
    bytes_staged: of drafts for the live folder; bytes_history: of packs for what was displaced; bytes_uploaded: everything put."""

    target: str = ""
    site: str = ""
    dry_run: bool = False
    snapshot: int = 0
    rollback_of: int = 0
    parent: int = 0
    entries: int = 0
    bytes: int = 0
    added: int = 0
    changed: int = 0
    described: int = 0
    moved: int = 0
    deleted: int = 0
    same: int = 0
    protected: int = 0
    files_staged: int = 0
    bytes_staged: int = 0
    bytes_history: int = 0
    bytes_uploaded: int = 0
    attempts: int = 1
    seconds: float = 0.0
    requests: dict[str, int] = field(default_factory=dict)
    problem_count: int = 0
    problems: list[Problem] = field(default_factory=list)


def rollback(target: TargetSpec, options: RollbackOptions, job: Job | None = None) -> RollbackReport:
    """Make the snapshot `options.at` the newest again; raises the errors of `mirror.errors`, reports problems of single paths."""
    job = job or Job("rollback")
    began = time.monotonic()
    if not options.at:
        hint = "say which with --at; `mirror snapshots TARGET` lists them"
        raise UsageError("cannot roll back", where=target.store.url, why="no snapshot is named", hint=hint)
    hint = "run the same command again to go on; the next sync or rollback finishes what is begun in a tree"
    report = with_or_without_cache(lambda spec: _run(spec, options, job), target, job, hint)
    report.seconds = time.monotonic() - began
    return report


def _run(spec: TargetSpec, options: RollbackOptions, job: Job) -> RollbackReport:
    with open_target(spec, lock=True, wait=options.wait, dry_run=options.dry_run) as target:
        job.site = target.site
        job.say(RunStarted("rollback", f"{target.url} snapshot {options.at}", target.url, options.dry_run))
        if target.is_received and not options.dry_run:
            hint = f"there, say: mirror rollback FOLDER --at {options.at}"
            raise UsageError(
                "cannot roll back", where=target.url, why="a tree is rolled back on the machine that holds it", hint=hint
            )
        try:
            with ExitStack() as stack:
                run = _Run(target, options, job, stack)
                repeated(run, target, "cannot roll back")
                return run.report
        except sqlite3.DatabaseError:
            target.state.discard()
            raise


@dataclass
class _Plan:
    """What one attempt is going to do. old: the snapshot that comes back; lines: what changes, with moves told apart."""

    head: log.Record
    newest: log.Record
    old: log.Record
    wanted: Wanted
    started: datetime
    rules: tuple[tuple[str, str], ...]
    lines: Lines

    def close(self) -> None:
        self.wanted.close()
        self.lines.close()


class _Run:
    """One rollback, over as many attempts as the log makes necessary."""

    def __init__(self, target: Target, options: RollbackOptions, job: Job, stack: ExitStack) -> None:
        self.target, self.options, self.job, self.exit = target, options, job, stack
        self.store, self.state = target.store, target.state
        self.dooms = log.Dooms(self.store, self.state)
        self.reader = ManifestReader(self.store, self.state, remember=not options.dry_run)
        self.report = RollbackReport(target.url, target.site, options.dry_run)
        self.at = options.at
        self.head: log.Record | None = None
        self.lost: dict[str, tuple[str, str]] = {}
        self._crew: Crew | None = None
        self._index: ChunkIndex | None = None
        self._tree: TreeRun | None = None

    # -- one attempt ---------------------------------------------------------------------------------------------

    def attempt(self, number: int) -> bool:
        """See `Attempting`."""
        self.report.attempts = number
        self.report.forget_problems()
        started = datetime.now(UTC)
        head = log.read_head(self.store, int(self.state.fact("head") or 0))
        check_writable(self.target, head)
        self.head = head
        old = pick(self.store, head, self.at)  # a wrong name stops the run before it touches anything
        self.at = str(old.number)
        if self.target.tree and not self.options.dry_run and unfinished(self.store, head) is not None:
            self.head = head = self.tree(old).finish(head, self._chunk_index)
            self.report.begin_own()
        newest = log.newest_snapshot(self.store, head)
        assert head is not None
        assert newest is not None
        if self.target.tree and is_emptied(self.target, newest):
            raise TargetMissingError(
                "cannot roll back",
                where=self.target.url,
                why=f"nothing stands there any more, and snapshot {newest.number} is not empty",
                hint="run the sync first: it fills the place again from the source; then roll back",
            )
        self.job.say(PhaseBegan("scan"))
        with closing(self._planned(head, newest, old, started)) as plan:
            self._guard(plan)
            if self.options.dry_run:
                self._show(plan)
                return True
            if not len(plan.wanted.steps):
                return self._only_hold(plan)
            return self._carry_out(plan)

    def _planned(self, head: log.Record, newest: log.Record, old: log.Record, started: datetime) -> _Plan:
        rules = self.options.rules or _rules_of(self.store.url, newest)
        protects = Matcher(Filter(rules, ignore_files=False)).protects if rules and not self.options.delete_excluded else None
        wanted = Wanted(self.reader, self.state.db, newest.manifest, old.manifest, protects, self._problem)
        try:
            plan = _Plan(head, newest, old, wanted, started, rules, Lines(wanted.steps, self.reader, self.state))
        except BaseException:
            wanted.close()
            raise
        self._count(plan)
        return plan

    def _count(self, plan: _Plan) -> None:
        report, totals = self.report, plan.lines.totals
        report.rollback_of, report.parent, report.protected = plan.old.number, plan.newest.number, plan.wanted.kept
        report.added, report.deleted, report.moved = totals[NEW], totals[DELETED], totals[MOVED]
        report.changed, report.described = totals[CHANGED], totals[DESCRIBED]
        report.entries = plan.newest.manifest.entries + totals[NEW] - totals[DELETED]
        report.same = report.entries - report.added - report.changed - report.moved - report.described
        report.bytes = plan.old.manifest.plain

    def _guard(self, plan: _Plan) -> None:
        """Law 3, on the whole plan, before anything is written. Moves do not count."""
        deleted, entries, limit = self.report.deleted, plan.newest.manifest.entries, self.options.max_delete
        if limit.allows(deleted, entries):
            return
        share = 100 * deleted / max(entries, 1)
        raise DeletionGuardError(
            "stopped before anything was written",
            where=self.target.url,
            why=f"{deleted:,} of {entries:,} entries ({share:.0f} %) would be deleted, the limit is {limit}",
            hint=f"if that is right, accept it once: {self.options.command} --max-delete {deleted}",
        )

    def _show(self, plan: _Plan) -> None:
        for line, size in plan.lines:
            self._line(line, size)
        if self.target.tree:
            self.report.files_staged, self.report.bytes_staged = extent(plan.wanted.steps, self.reader)

    def _only_hold(self, plan: _Plan) -> bool:
        """Nothing differs. What was asked for is there, and nobody is to take it away."""
        held, head = hold_of(plan.head), plan.head
        if held is None or held.of != plan.old.number:
            record = append_hold(self.store, self.target.uuid, head, begin(plan.old.number, head, plan.started))
            if record is None:
                return False
            head = record
        self._finish(head)
        return True

    def _carry_out(self, plan: _Plan) -> bool:
        head = plan.head
        self.dooms.learn(head)
        drafts = self._stage(plan) if self.target.tree else None
        self.job.say(PhaseBegan("commit"))
        writer = ManifestWriter(self.store, head.epoch, {}, self.state)
        root = plan.wanted.root(partial(ManifestWriter, self.store, head.epoch, state=self.state))
        changes = writer.changes(self._said(plan.lines))
        self.report.entries, self.report.bytes = root.entries, root.plain
        members = self._members(plan, root, changes)
        if self.target.tree:
            tree = self.tree(plan.old)
            record = tree.publish(head, plan.newest, root, self._chunk_index(), members)
            newest, self.report.bytes_history = tree.newest, tree.history
        else:
            live = head.live.plus(head.number + 1)
            appended = log.append(self.store, log.draft(log.SNAPSHOT, self.target.uuid, head, live, **members))
            newest = record = appended if isinstance(appended, log.Record) else None
        if record is None or newest is None:
            return False
        if not self.target.tree:
            self.job.say(SnapshotCommitted(record.number))
        self.report.snapshot = record.number
        self.report.entries, self.report.bytes = record.manifest.entries, record.manifest.plain
        self._finish(newest, drafts)
        return True

    def _stage(self, plan: _Plan) -> Drafts | None:
        """Drafts of what comes back, before anything that goes is packed (decision 0005); a bucket has none."""
        index = self._chunk_index()
        index.drop_claims()
        index.refresh(self.dooms, self._spoilt_fragment)
        tree = self.tree(plan.old)
        if not isinstance(tree.live, LiveTree):
            return None
        self._check_free(plan, tree)
        drafts = Drafts(tree.works(index, plan.head.epoch), tree.live, self.dooms)
        drafts.make(plan.wanted.steps, plan.newest.manifest, plan.old.manifest)
        self.lost = drafts.lost
        self.report.files_staged, self.report.bytes_staged = drafts.files, drafts.size
        return drafts

    def _check_free(self, plan: _Plan, tree: TreeRun) -> None:
        least = Least(self.options.min_free, self.options.min_free_percent)
        check_room(self.target, tree.staged(), extent(plan.wanted.steps, self.reader)[1], least, surely=True)

    def _members(self, plan: _Plan, root: Ref, changes: Ref) -> dict[str, Any]:
        """What the record says beside what every record does. The source is that of the snapshot that comes back."""
        report = self.report
        names = ("added", "changed", "moved", "described", "deleted")
        return dict(
            source=plan.old.body.get("source", {}),
            started=write_time(plan.started),
            finished=write_time(datetime.now(UTC)),
            tags=[],
            filters=[list(rule) for rule in plan.rules],
            manifest=log.ref_json(root),
            changes=log.ref_json(changes),
            totals={"entries": root.entries, "bytes": root.plain, **{name: getattr(report, name) for name in names}},
            **self._told(plan.old),
            parents=[plan.newest.number],
            rollback_of=plan.old.number,
            hold=begin(plan.old.number, plan.head, plan.started),
        )

    def _told(self, old: log.Record) -> dict[str, Any]:
        report = self.report
        return {
            "complete": bool(old.body.get("complete", True)) and not report.failed,
            "problems": problem_lines(report.own_problems),
            "problem_count": report.own_count,
        }

    def tree(self, old: log.Record) -> TreeRun:
        """What this run does to a tree."""
        if self._tree is None:
            self._tree = TreeRun(
                self.target,
                self.target.live,
                None,
                source_key_of(old),
                self.reader,
                self.dooms,
                self.job,
                self._problem,
                self._workers,
                partial(self._told, old),
                self.exit,
                wait=self.options.wait,
                take_over=self.options.take_over,
                lease_seconds=self.options.lease,
                strangers=is_from_client(self.store, old),
            )
        return self._tree

    def _workers(self) -> Crew:
        if self._crew is None:
            self._crew = self.exit.enter_context(Crew(self.options.workers))
        return self._crew

    def _chunk_index(self) -> ChunkIndex:
        self._index = self._index or ChunkIndex(self.state, self.store)
        return self._index

    def _finish(self, head: log.Record, drafts: Drafts | None = None) -> None:
        log.put_hint(self.store, head)
        self.state.remember("head", str(head.number))
        counts = (
            self.store.counts + (drafts.requests if drafts else Requests()) + (self._tree.requests if self._tree else Requests())
        )
        self.report.requests = counts.by_kind
        self.report.bytes_uploaded = counts.bytes_up
        hold = hold_of(head)
        assert hold is not None
        self.job.say(Notice("held", f"the next sync stops here (exit 11), until one with --release: {hold}"))

    # -- what is said of it --------------------------------------------------------------------------------------

    def _said(self, lines: Iterable[tuple[ChangeLine, int]]) -> Iterator[ChangeLine]:
        for line, size in lines:
            self._line(line, size)
            yield line

    def _line(self, line: ChangeLine, size: int) -> None:
        self.job.say(Change(line.symbol, show(line.path), size, show(line.moved_from) if line.moved_from else ""))

    def _problem(self, problem: Problem) -> None:
        if problem.kind == "unwritable" and problem.path in self.lost:  # it could not, since there was no content for it
            kind, why = self.lost[problem.path]
            problem = Problem(problem.path, kind, why, "it was left as it is; `mirror verify` names what is damaged")
        self.report.add(problem)
        self.job.say(ProblemFound(problem))

    def _spoilt_fragment(self, key: str, error: Exception) -> None:
        if not isinstance(error, DamageError):
            raise error
        self._problem(Problem(key, "damaged", error.why, "what it lists may be missing; `mirror verify` says what else is damaged"))


def _rules_of(where: str, record: log.Record) -> tuple[tuple[str, str], ...]:
    """The rules that a snapshot was made with."""
    try:
        return tuple((str(kind), str(pattern)) for kind, pattern in record.body.get("filters", ()))
    except (TypeError, ValueError) as error:
        place = f"{where}/{record_key(record.number)}"
        hint = "give the rules that are to hold, or --delete-excluded"
        raise DamageError("cannot use the rules in", where=place, why="they are malformed", hint=hint) from error
