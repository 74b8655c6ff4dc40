"""`mirror publish`: make what clients have brought for a tree its newest snapshot, so that people see it.

    report = publish(TargetSpec(StoreSpec("/srv/mirrors/www")))
    report.snapshot, report.of

A client that syncs into a tree through `mirror serve` brings packs and a record of kind `import`. What that names is published here
as by a sync that has no site at hand: drafts are put together from the packs and from live files, then the four steps of every
publish follow. What clients brought goes afterwards: its content is live. `mirror serve` runs this verb in a process of its own;
whoever has only a key asks that server for it.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from mirror import log
from mirror.asking import publish_there
from mirror.attempts import check_writable, repeated, with_or_without_cache
from mirror.commit import MOST_PROBLEMS, problem_lines
from mirror.drafts import Drafts, extent
from mirror.envelope import write_time
from mirror.errors import AuthError, DamageError, UsageError
from mirror.events import Change, Job, Notice, PhaseBegan, Problem, ProblemFound, ProblemReport, RunStarted
from mirror.keys import show
from mirror.lacking import Lacking
from mirror.lines import Lines
from mirror.lookup import ChunkIndex
from mirror.manifest import ChangeLine, Ref
from mirror.plan import CHANGED, DELETED, DESCRIBED, MOVED, NEW
from mirror.publishing import PublishOptions
from mirror.received import drop
from mirror.site.live import LiveTree
from mirror.snapshot import ManifestReader, ManifestWriter
from mirror.space import Least, check_room
from mirror.spool import Spool
from mirror.steps import Step, changes, step_spool
from mirror.store.wrap import Counts as Requests
from mirror.survey import source_key_of
from mirror.target import Target, TargetSpec, open_target
from mirror.tree import TreeRun
from mirror.unfinished import is_emptied, unfinished
from mirror.workers import Crew


@dataclass(frozen=True, slots=True)
class WaitingOptions:
    """How what waits is published. workers: processes, 0 in this one. min_free: bytes; min_free_percent: of the whole place; wait:
    for another run that uses the tree."""

    workers: int = 2
    min_free: int | None = None
    min_free_percent: float | None = None
    wait: bool = False


@dataclass
class PublishReport(ProblemReport):
    """What was published. snapshot: its number, 0 when nothing waited; of: the number of the import; parent: the snapshot before.
    added … same: against the parent. files_staged, bytes_staged: of drafts for the live folder; bytes_history: of packs for what
    was displaced; dropped: objects that clients had brought and that went, since their content is live."""

    target: str = ""
    site: str = ""
    snapshot: int = 0
    of: int = 0
    parent: int = 0
    entries: int = 0
    bytes: int = 0
    added: int = 0
    changed: int = 0
    described: int = 0
    moved: int = 0
    deleted: int = 0
    same: int = 0
    files_staged: int = 0
    bytes_staged: int = 0
    bytes_history: int = 0
    dropped: int = 0
    attempts: int = 1
    seconds: float = 0.0
    requests: dict[str, int] = field(default_factory=dict)
    problem_count: int = 0
    problems: list[Problem] = field(default_factory=list)


def publish(target: TargetSpec, options: WaitingOptions | None = None, job: Job | None = None) -> PublishReport:
    """Publish what waits in a tree; raises the errors of `mirror.errors`, reports problems of single paths."""
    job, options = job or Job("publish"), options or WaitingOptions()
    began = time.monotonic()
    hint = "run the same command again to go on; the next sync or publish finishes what is begun"
    report = with_or_without_cache(lambda spec: _run(spec, options, job), target, job, hint)
    report.seconds = time.monotonic() - began
    return report


def _run(spec: TargetSpec, options: WaitingOptions, job: Job) -> PublishReport:
    with open_target(spec, lock=True, wait=options.wait) as target:
        job.site = target.site
        job.say(RunStarted("publish", "", target.url))
        if not target.tree or target.in_bucket:
            why = "clients bring their snapshots, and nothing waits, but in a tree in a folder"
            raise UsageError("cannot publish", where=target.url, why=why, hint="sync into it: that publishes as well")
        if target.is_received:
            return _asked(target, job)
        try:
            with ExitStack() as stack:
                run = _Run(target, options, job, stack)
                repeated(run, target, "cannot publish")
                return run.report
        except sqlite3.DatabaseError:
            target.state.discard()
            raise


def _asked(target: Target, job: Job) -> PublishReport:
    """Have it done by the server that holds the target."""
    report = PublishReport(target.url, target.site)
    head = log.read_head(target.store, int(target.state.fact("head") or 0))

    def problem(found: Problem) -> None:
        report.add(found)
        job.say(ProblemFound(found))

    done = publish_there(target, head, job, problem)
    if done is None:
        why = f"the key {target.spec.store.key_file} has not the right publish"
        raise AuthError("cannot publish", where=target.url, why=why, hint="ask there for a key with that right")
    record = done.record
    if record is not None and head is not None and head.body.get("waits"):
        report.bytes_history = done.bytes_history
        report.snapshot, report.of = record.number, int(record.body.get("import", 0))
        report.entries, report.bytes = record.manifest.entries, record.manifest.plain
        totals = record.body.get("totals", {})
        for name in ("added", "changed", "described", "moved", "deleted"):
            setattr(report, name, totals.get(name, 0))
    return report


class _Run:
    """One publish, over as many attempts as the log makes necessary."""

    def __init__(self, target: Target, options: WaitingOptions, job: Job, stack: ExitStack) -> None:
        self.target, self.options, self.job, self.exit = target, options, job, stack
        self.store, self.state = target.store, target.state
        self.dooms = log.Dooms(self.store, self.state)
        self.reader = ManifestReader(self.store, self.state)
        self.index = ChunkIndex(self.state, self.store)
        self.report = PublishReport(target.url, target.site)
        self.head: log.Record | None = None
        self.lost: dict[str, tuple[str, str]] = {}
        self.told: dict[str, Any] = {}
        self._crew: Crew | None = None

    # -- one attempt ---------------------------------------------------------------------------------------------

    def attempt(self, number: int) -> bool:
        """See `Attempting`."""
        self.report.attempts = number
        self.report.forget_problems()
        started = datetime.now(UTC)
        head = log.read_head(self.store, int(self.state.fact("head") or 0))
        check_writable(self.target, head)
        brought = log.waiting(self.store, head)
        if head is not None and unfinished(self.store, head) is not None:
            tree = self._tree(brought or head, PublishOptions())
            head = tree.finish(head, lambda: self.index)
            self.report.begin_own()
            brought = log.waiting(self.store, head)
        self.head = head
        parent = log.newest_snapshot(self.store, head)
        if head is None or brought is None:
            self._finish(head, parent)
            return True
        if parent is not None and is_emptied(self.target, parent):
            text = f"nothing was there any more: snapshot {parent.number} is not there"
            self.job.say(Notice("refilled", f"{text}, and what was not brought now comes with the next sync"))
            parent = None
        return self._carry_out(head, parent, brought, started)

    def _carry_out(self, head: log.Record, parent: log.Record | None, brought: log.Record, started: datetime) -> bool:
        self.dooms.learn(head)
        self.index.drop_claims()
        self.index.refresh(self.dooms, self._spoilt_fragment)
        old = parent.standing if parent else None
        options = PublishOptions.wished(brought.body.get("publish", {}))
        tree = self._tree(brought, options)
        with ExitStack() as stack:
            steps = stack.enter_context(step_spool())
            steps.extend(Step(*each) for each in changes(self.reader, old, brought.manifest))
            drafts = self._stage(tree, head, steps, old, brought)
            lines = stack.enter_context(closing(Lines(self._against(parent, steps, brought), self.reader, self.state)))
            self.job.say(PhaseBegan("commit"))
            self._count(lines, parent, brought)
            listed = ManifestWriter(self.store, head.epoch, {}, self.state).changes(self._said(lines)) if parent else None
            members = self._members(lines, parent, brought, listed, started)
            record = tree.publish(head, parent, brought.manifest, self.index, members)
        if record is None:
            return False
        report = self.report
        report.snapshot, report.bytes_history = record.number, tree.history
        report.entries, report.bytes = record.manifest.entries, record.manifest.plain
        self._finish(tree.newest, record, drafts)
        return True

    def _against(self, parent: log.Record | None, steps: Spool[Step], brought: log.Record) -> Iterable[Step]:
        """The steps from the parent's manifest: those of the publish, but where something lingers."""
        if parent is None or parent.standing == parent.manifest:
            return steps
        return (Step(*each) for each in changes(self.reader, parent.manifest, brought.manifest))

    def _stage(self, tree: TreeRun, head: log.Record, steps: Spool[Step], old: Ref | None, brought: log.Record) -> Drafts:
        live = tree.live
        assert isinstance(live, LiveTree)
        needed = extent(steps, self.reader)[1]
        check_room(self.target, tree.staged(), needed, Least(self.options.min_free, self.options.min_free_percent), surely=True)
        lacking = Lacking(self.reader, self.index, self.state.db)
        try:
            lacking.note(step.after for step in steps)
            lacking.look(step.before for step in steps)
            lacking.look(self.reader.entries(old) if old else ())
            drafts = Drafts(tree.works(self.index, head.epoch), live, self.dooms, lacking=lacking)
            drafts.make(steps, old, brought.manifest)
        finally:
            lacking.close()
        self.lost = drafts.lost
        self.report.files_staged, self.report.bytes_staged = drafts.files, drafts.size
        return drafts

    def _count(self, lines: Lines, parent: log.Record | None, brought: log.Record) -> None:
        report, totals = self.report, lines.totals
        report.of, report.parent = brought.number, parent.number if parent else 0
        report.added, report.deleted, report.moved = totals[NEW], totals[DELETED], totals[MOVED]
        report.changed, report.described = totals[CHANGED], totals[DESCRIBED]
        report.entries = brought.manifest.entries
        report.same = report.entries - report.added - report.changed - report.moved - report.described

    def _members(
        self, lines: Lines, parent: log.Record | None, brought: log.Record, listed: Ref | None, started: datetime
    ) -> dict[str, Any]:
        """What the record says beside what every record does: mostly what the import says."""
        body, root = brought.body, brought.manifest
        names = {NEW: "added", CHANGED: "changed", MOVED: "moved", DESCRIBED: "described", DELETED: "deleted"}
        self.told = {name: body[name] for name in ("complete", "problems", "problem_count") if name in body}
        return dict(
            source=body.get("source", {}),
            started=body["started"],
            finished=write_time(datetime.now(UTC)),
            tags=body.get("tags", []),
            filters=body.get("filters", []),
            manifest=log.ref_json(root),
            changes=log.ref_json(listed) if listed else None,
            totals={"entries": root.entries, "bytes": root.plain, **{names[s]: n for s, n in lines.totals.items()}},
            **self._told(),
            parents=[parent.number] if parent else [],
            **{"import": brought.number},
        )

    def _told(self) -> dict[str, Any]:
        report, told = self.report, self.told
        return {
            "complete": bool(told.get("complete", True)) and not report.failed,
            "problems": [*told.get("problems", []), *problem_lines(report.own_problems)][:MOST_PROBLEMS],
            "problem_count": int(told.get("problem_count", 0)) + report.own_count,
        }

    def _tree(self, source: log.Record, options: PublishOptions) -> TreeRun:
        return TreeRun(
            self.target,
            self.target.live,
            None,
            source_key_of(source),
            self.reader,
            self.dooms,
            self.job,
            self._problem,
            self._workers,
            self._told,
            self.exit,
            options,
            wait=self.options.wait,
            strangers=True,
        )

    def _workers(self) -> Crew:
        if self._crew is None:
            self._crew = self.exit.enter_context(Crew(self.options.workers))
        return self._crew

    def _finish(self, head: log.Record | None, newest: log.Record | None, drafts: Drafts | None = None) -> None:
        """Leave the hint, and let go what is not needed any more."""
        report = self.report
        if head is not None:
            log.put_hint(self.store, head)
            self.state.remember("head", str(head.number))
        if not report.snapshot and newest is not None:
            report.parent, report.entries, report.bytes = newest.number, newest.manifest.entries, newest.manifest.plain
        report.dropped = drop(self.store, self.state, self.target.uuid)
        counts = self.store.counts + (drafts.requests if drafts else Requests())
        report.requests = counts.by_kind

    # -- what is said of it --------------------------------------------------------------------------------------

    def _said(self, lines: Iterable[tuple[ChangeLine, int]]) -> Iterator[ChangeLine]:
        for line, size in lines:
            if self.job.each_path:
                self.job.say(Change(line.symbol, show(line.path), size, show(line.moved_from) if line.moved_from else ""))
            yield line

    def _problem(self, problem: Problem) -> None:
        if problem.kind == "unwritable" and problem.path in self.lost:  # it could not, since there was no content for it
            kind, why = self.lost[problem.path]
            problem = Problem(problem.path, kind, why, "the next sync brings it again")
        self.report.add(problem)
        self.job.say(ProblemFound(problem))

    def _spoilt_fragment(self, key: str, error: Exception) -> None:
        if not isinstance(error, DamageError):
            raise error
        self._problem(Problem(key, "damaged", error.why, "what it lists may be missing; the next sync brings it again"))
