"""`mirror sync`: make the target's newest snapshot what the site is now.

    report = sync(SiteSpec("/srv/www"), TargetSpec(StoreSpec("/backup/www")), SyncOptions(making=Making("packed")))
    report.snapshot, report.added, report.problems

One attempt is survey → guards → transfer → commit. Before its record exists nothing has happened: packs that an attempt left
are used by the next one. An attempt that loses the race at the log is made anew where its ground moved
(`commit.append_snapshot`).
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

from mirror import log
from mirror.attempts import check_writable, repeated, with_or_without_cache
from mirror.envelope import SEGMENT, write_time
from mirror.errors import DamageError, ItemError, UsageError
from mirror.events import (
    Advanced,
    Change,
    Job,
    Notice,
    PhaseBegan,
    Problem,
    ProblemFound,
    RunStarted,
    SnapshotCommitted,
)
from mirror.hold import Heeding
from mirror.keys import show
from mirror.making import Making
from mirror.manifest import ChangeLine
from mirror.plan import CHANGED, DELETED, DESCRIBED, MOVED, NEW, Counts, DeletionLimit
from mirror.publishing import PublishOptions
from mirror.site import Site, SiteSpec
from mirror.site.open import open_site
from mirror.snapshot import ManifestReader
from mirror.space import Least, check_room, history_total
from mirror.spool import Sorter
from mirror.store.open import is_folder_url
from mirror.store.wrap import Counts as Requests
from mirror.survey import LookOptions, Survey, beside_store, check_all_ends, guard, keep_validators, known_of, look, source_key
from mirror.tally import SyncReport
from mirror.target import Target, TargetSpec, open_target
from mirror.unfinished import has_drafts, is_emptied, unfinished

if TYPE_CHECKING:
    from mirror.bringing import Bringing
    from mirror.commit import Outcome
    from mirror.cost import Estimate
    from mirror.lookup import ChunkIndex
    from mirror.manifest import Entry
    from mirror.store import StoreSpec
    from mirror.transfer.send import Sent
    from mirror.tree import TreeRun
    from mirror.workers import Crew

_SKIP = "--symlinks skip"  # counted as a rule is
_SMALL_BYTES, _SMALL_FILES = 48 << 20, 4000  # below both, starting workers costs more than they save


@dataclass(frozen=True, slots=True)
class SyncOptions:
    """workers: processes, 0 in this one. min_free: bytes; min_free_percent: of the whole place; both None: 5 % and at most 10 GiB.
    max_transfer: bytes. max_duration: seconds.
    making: what may be done about a target that is not there. skip_conflicts: leave out what cannot be in a tree under its name.
    take_over: finish what another run publishes into a bucket without looking whether it lives; lease: seconds that this one may
    go on without saying that it does. public_url: where people see a tree. command: how to name this run in hints."""

    making: Making = Making()
    dry_run: bool = False
    look: LookOptions = LookOptions()
    max_delete: DeletionLimit = DeletionLimit()
    allow_empty_source: bool = False
    workers: int = 2
    max_transfer: int | None = None
    max_duration: float | None = None
    min_free: int | None = None
    min_free_percent: float | None = None
    tags: tuple[str, ...] = ()
    heartbeat: bool = False
    stop_on_error: bool = False
    skip_conflicts: bool = False
    wait: bool = False
    take_over: bool = False
    lease: float = 30.0
    publish: PublishOptions = PublishOptions()
    release: bool = False
    public_url: str = ""
    command: str = "mirror sync"


def sync(source: SiteSpec, target: TargetSpec, options: SyncOptions | None = None, job: Job | None = None) -> SyncReport:
    """Mirror the site into the target; raises the errors of `mirror.errors`, reports problems of single paths."""
    options = options or SyncOptions()
    job = job or Job("sync")
    began = time.monotonic()
    check_all_ends(source.url, target)
    if options.publish.never_delete and options.look.delete_excluded:
        raise UsageError("cannot use --delete-excluded", why="with --delete never nothing is deleted", hint="leave one of them out")
    site = open_site(source)
    site.check()  # a source that cannot be read must not leave a new target behind
    job.say(RunStarted("sync", site.url, target.store.url, options.dry_run))
    hint = "progress is kept; run the same command again to go on"
    report = with_or_without_cache(lambda spec: _run(source, site, spec, options, job, began), target, job, hint)
    report.seconds = time.monotonic() - began
    return report


def _run(source: SiteSpec, site: Site, target: TargetSpec, options: SyncOptions, job: Job, began: float) -> SyncReport:
    options.publish.check(options.making.layout != "packed", target.store.url)  # before a new target is made
    with open_target(target, lock=True, wait=options.wait, making=options.making, dry_run=options.dry_run) as opened:
        options.publish.check(bool(opened.tree), opened.url)
        job.site = opened.site
        if opened.new and not options.making.layout and not opened.tree:
            job.say(Notice("layout", f"a new target of layout packed: a tree cannot be at {opened.url}"))
        if opened.state.why_not:
            job.say(Notice("no-cache", f"nothing is kept on this host for the next run ({opened.state.why_not})"))
        if options.public_url:
            _check_hidden(opened, options, job)
        try:
            with ExitStack() as stack:
                run = _Run(source, site, opened, options, job, began, stack)
                repeated(run, opened, "cannot go on from the last snapshot")
                return run.report
        except sqlite3.DatabaseError:
            opened.state.discard()
            raise


def _check_hidden(target: Target, options: SyncOptions, job: Job) -> None:
    """UsageError when everybody can fetch the `.mirror/` of a tree. Of a new tree no more is there yet than what is asked for."""
    from mirror.public import found_open

    if target.new and options.dry_run:
        return
    found = found_open(options.public_url, target.tree, target.store.url, target.uuid, job)
    if found is not None:
        why = f"everybody can read {found.url}, and so deleted pages"
        raise UsageError("cannot publish into", where=target.tree, why=why, hint=found.hint, kind="public")


class _Run:
    """One sync, over as many attempts as the log makes necessary."""

    def __init__(
        self, source: SiteSpec, site: Site, target: Target, options: SyncOptions, job: Job, began: float, stack: ExitStack
    ) -> None:
        self.exit = stack
        self.crew: Crew | None = None
        self.spec, self.site, self.target, self.options, self.job = (
            beside_store(source, bool(target.tree)),
            site,
            target,
            options,
            job,
        )
        self.deadline = began + options.max_duration if options.max_duration is not None else None
        self.state, self.store = target.state, target.store
        self.dooms = log.Dooms(self.store, self.state)
        self.reader = ManifestReader(self.store, self.state, remember=not options.dry_run)
        self.source = source_key(site.identity)
        self.identity = {"site": target.site, **site.identity}
        self.index: ChunkIndex | None = None
        self.head: log.Record | None = None
        self.report = SyncReport(site.url, target.url, target.site, options.dry_run)
        self._tree: TreeRun | None = None
        self.publishes = bool(target.tree) and not target.is_received  # this run itself changes a live place
        self.hold = Heeding(target.store, target.uuid, job, target.url, options.command, options.release, options.dry_run)
        self.skipped = 0
        self._packed: int | None = None  # bytes kept before this run's own, once the index is known

    # -- one attempt ---------------------------------------------------------------------------------------------

    def attempt(self, number: int) -> bool:
        """See `Attempting`."""
        self.report.attempts = number
        self.report.forget_problems()
        job, options = self.job, self.options
        started = datetime.now(UTC)
        known = self.state.fact("head")
        head = None if self.target.new and options.dry_run else log.read_head(self.store, int(known or 0))
        check_writable(self.target, head)
        if head and self.target.tree and not options.dry_run and unfinished(self.store, head) is not None:
            head = self.tree.finish(head, self._chunk_index) if self.publishes else self.bringing.finish(head)
            self.report.begin_own()
        self.head = head
        self.hold.heed(head)
        parent = self.bringing.base(head) if self.target.is_received else log.newest_snapshot(self.store, head)
        self._say_if_moved(parent)
        if parent is not None and self.publishes and is_emptied(self.target, parent):
            # Emptied, or a new disk for a store that is elsewhere: what the last snapshot has is not there, so all of it is news.
            job.say(Notice("refilled", f"nothing was there any more: all is published anew, snapshot {parent.number} is not there"))
            parent = None
        job.say(PhaseBegan("scan"))
        self.skipped = 0
        entries = known_of(self.store, self.reader, head, parent, self.state, self.source, options.look.routes)
        with look(self.site, self.spec.filter, entries, options.look, self._problem, self._scanned) as survey:
            self._check_names(survey, parent)
            if self.skipped:
                survey.rules[_SKIP] = self.skipped
            survey.never_delete = options.publish.never_delete
            self.report.looked(survey, parent.number if parent else 0)
            guard(survey, self.site, self.reader, self.state, options.max_delete, options.allow_empty_source, options.command)
            if options.dry_run:
                self._show(survey, parent)
                return True
            if parent is not None and not survey.has_work and not self._wants_one(parent):
                return self._nothing_to_do(head or parent, parent, survey)
            return self._carry_out(survey, head, parent, started)

    def _wants_one(self, parent: log.Record) -> bool:
        """Whether a snapshot is made though nothing of the site has changed. What lingers goes with the next one: where it is not
        to linger any longer, that is now."""
        options = self.options
        lingers = bool(parent.body.get("standing")) and not options.publish.lingers
        return bool(options.tags) or options.heartbeat or lingers

    def _carry_out(self, survey: Survey, head: log.Record | None, parent: log.Record | None, started: datetime) -> bool:
        # Here, not above: a night without changes is over before the 60 ms that these take to import.
        from mirror.commit import Committer, Ground, append_snapshot

        self._check_free(survey)
        if is_folder_url(self.store.url):
            self.store.sweep()  # what a dead run left behind; object stores leave nothing of ours
        self.dooms.learn(head)
        index = self._chunk_index()
        index.drop_claims()
        fresh = self.target.new and self.report.attempts == 1  # without any record it need not be: a first sync that died
        if (survey.counts.fetch_files or self.publishes) and not fresh:
            index.refresh(self.dooms, self._spoilt_fragment)
        if survey.counts.fetch_files and self.target.is_received:
            self.bringing.stands(head, index)
        self._packed = self._kept_so_far(index)
        epoch = head.epoch if head else 0
        with Sorter() as results:
            sent = self._transfer(survey, epoch, results)
            self.job.say(PhaseBegan("commit"))
            store = self.target.spec.store
            committer = Committer(
                self.store,
                self.state,
                self.reader,
                parent,
                epoch,
                self.source,
                self._problem,
                self._line,
                store.transfers,
                self.options.look.routes,
            )
            outcome = committer.write(survey, results)
        self.report.tally(outcome, sent)
        if parent is not None and not outcome.changed and not self._wants_one(parent):
            self._sweep_drafts()
            newest = self.hold.release(head or parent)
            if newest is None:
                return False
            self._published_there(newest)
            self._finish(newest, parent.manifest, sent)
            return True
        members = partial(self._members, parent, outcome, started)
        if self.publishes and (outcome.changed or parent is None or parent.body.get("standing")):
            record = self.tree.publish(head, parent, outcome.root, index, members())
        else:
            ground = Ground(head, parent, index.used, {*sent.written, *committer.written}, self.identity)
            record = append_snapshot(self.store, self.dooms, ground, lambda base: self._draft(base, members()))
        if record is None:
            return False
        if self.target.is_received:
            self._brought(record, sent)
        else:
            self._committed(record, sent)
        return True

    def _brought(self, record: log.Record, sent: Sent) -> None:
        """All is there that the record says: have it published."""
        self.hold.say()
        log.put_hint(self.store, record)
        self.state.remember("head", str(record.number))
        self._published_there(record)
        self._finish(record, record.manifest, sent)

    def _published_there(self, head: log.Record) -> None:
        """Have published what waits on another machine, if anything does."""
        if not (self.target.is_received and head.body.get("waits")):
            return
        done = self.bringing.publish(head)
        report = self.report
        if done is None or done.record is None:
            report.waits = int(head.body["waits"])
            return
        report.snapshot, report.bytes_history = done.record.number, done.bytes_history
        report.entries, report.bytes = done.record.manifest.entries, done.record.manifest.plain

    def _committed(self, record: log.Record, sent: Sent) -> None:
        if "deletes" not in record.body:  # else it was said before the deletions
            self.job.say(SnapshotCommitted(record.number))
        self.hold.say()
        newest = self._tree.newest if self._tree and self._tree.newest else record
        log.put_hint(self.store, newest)
        self.report.snapshot = record.number
        if self._tree:
            self.report.bytes_history, self.report.forgotten = self._tree.history, self._tree.forgotten
        self.report.entries, self.report.bytes = record.manifest.entries, record.manifest.plain
        self._finish(newest, record.manifest, sent)

    def _check_names(self, survey: Survey, parent: log.Record | None) -> None:
        """What cannot stand in the live place under its name: an error, or left out. Nothing has been written so far."""
        if not self.publishes or not len(survey.plan):
            return
        from mirror.naming import fitting

        def before() -> Iterator[Entry]:
            return self.reader.entries(parent.manifest) if parent else iter(())

        skip, look_only = self.options.skip_conflicts, self.options.dry_run
        survey.plan = fitting(survey.plan, survey.counts, before, self.target, skip, look_only, self._problem)

    def _chunk_index(self) -> ChunkIndex:
        from mirror.lookup import ChunkIndex

        self.index = self.index or ChunkIndex(self.state, self.store)
        return self.index

    def _transfer(self, survey: Survey, epoch: int, results: Sorter) -> Sent:
        from mirror.transfer import up
        from mirror.transfer.send import Limits, Sender
        from mirror.workers import Crew

        counts, options = survey.counts, self.options
        assert self.index is not None
        self.job.say(PhaseBegan("transfer", counts.fetch_files, counts.fetch_bytes))
        crew = self._crew() if _is_large(counts) else Crew(0)
        limits = Limits(options.max_transfer, self.deadline)
        if self.publishes:
            return self.tree.read(survey.plan, self.index, epoch, crew, limits, results)
        batch_job = up.Job(self.spec, self._store_of(crew), epoch)
        sender = Sender(self.store, self.state, self.index, batch_job, self.source, crew, self.job, limits, results)
        try:
            return sender.run(survey.plan)
        finally:
            up.release()

    def _store_of(self, crew: Crew) -> StoreSpec:
        """The store as a worker opens it: the limit holds for all processes together."""
        store = self.target.spec.store
        return replace(store, bandwidth=store.bandwidth // max(crew.processes, 1))

    def _crew(self) -> Crew:
        from mirror.workers import Crew

        if self.crew is None:
            self.crew = self.exit.enter_context(Crew(self.options.workers))
        return self.crew

    def _scanned(self, count: int, counts: Counts) -> None:
        """While the scan goes on, workers begin: loading what they need takes as long as looking at 50,000 paths."""
        self.job.say(Advanced(count))
        if self.crew is None and not self.options.dry_run and _is_large(counts):
            from mirror.transfer import up

            crew = self._crew()
            if self.publishes:
                crew.warm(partial(import_module, "mirror.transfer.up" if self.target.in_bucket else "mirror.transfer.stage"))
            else:
                crew.warm(partial(up.ready, self.spec, self._store_of(crew)))

    def _draft(self, base: log.Record | None, members: dict[str, Any]) -> dict[str, Any]:
        from mirror.names import following, of_run

        members |= following(self.store, base, of_run(self.index), self.dooms)
        if self.target.is_received:
            return self.bringing.draft(base, members)
        live = (base.live if base else log.Live()).plus((base.number if base else 0) + 1)
        return log.draft(log.SNAPSHOT, self.target.uuid, base, live, **members)

    def _members(self, parent: log.Record | None, outcome: Outcome, started: datetime) -> dict[str, Any]:
        """What a snapshot's record says beside what every record does."""
        return dict(
            source=self.identity,
            started=write_time(started),
            finished=write_time(datetime.now(UTC)),
            tags=list(self.options.tags),
            filters=[list(rule) for rule in self.spec.filter.rules],
            manifest=log.ref_json(outcome.root),
            changes=log.ref_json(outcome.changes) if outcome.changes else None,
            totals={"entries": outcome.root.entries, "bytes": outcome.root.plain, **_named(outcome.totals)},
            **self._told(),
            parents=[parent.number] if parent else [],
            **self.hold.members,
        )

    def _told(self) -> dict[str, Any]:
        from mirror.commit import problem_lines

        report = self.report
        return {
            "complete": not report.incomplete and not report.failed,
            "problems": problem_lines(report.own_problems),
            "problem_count": report.own_count,
        }

    @property
    def tree(self) -> TreeRun:
        """What this run does to a tree; not loaded by a night without changes."""
        from mirror.tree import TreeRun

        self._tree = self._tree or TreeRun(
            self.target,
            self.spec,
            self.site,
            self.source,
            self.reader,
            self.dooms,
            self.job,
            self._problem,
            self._crew,
            self._told,
            self.exit,
            self.options.publish,
            self.options.wait,
            self.options.take_over,
            self.options.lease,
        )
        return self._tree

    @property
    def bringing(self) -> Bringing:
        """What this run does to a tree on another machine."""
        from mirror.bringing import Bringing

        return Bringing(self.target, self.reader, self.job, self._problem, self.options.publish)

    def _finish(self, record: log.Record, root: Any, sent: Sent) -> None:
        if not self.target.is_received:  # else it was remembered, and the log has gone on
            self.state.remember("head", str(record.number))
        self.state.forget_found(self.source)
        if self.report.snapshot or self.report.waits:
            digests = [ref.digest for ref, _ in self.reader.nodes(root, SEGMENT)]
            self.state.keep_only(digests)
        self._place_left(record)
        self._requests(sent.requests)

    def _nothing_to_do(self, found: log.Record, parent: log.Record, survey: Survey) -> bool:
        head = self.hold.release(found)
        if head is None:
            return False
        if not len(survey.plan):
            keep_validators(self.reader, self.state, parent.manifest, self.source, survey, self.options.look.routes)
        self._sweep_drafts()
        self.state.remember("head", str(head.number))
        self._published_there(head)
        self.report.entries, self.report.bytes = parent.manifest.entries, parent.manifest.plain
        self._place_left(head)
        self._requests(Requests())
        return True

    def _sweep_drafts(self) -> None:
        if self.publishes and not self.target.in_bucket and has_drafts(self.target.tree):
            from mirror.site.live import sweep_staged

            sweep_staged(self.target.tree)

    # -- what is said of it --------------------------------------------------------------------------------------

    def _problem(self, problem: Problem) -> None:
        if problem.kind == "skipped":
            self.skipped += 1
            self.job.say(ProblemFound(problem))
            return
        self.report.add(problem)
        self.job.say(ProblemFound(problem))
        if self.options.stop_on_error and problem.exit_code:
            raise ItemError(
                "stopped at the first problem", where=problem.path, why=problem.why, hint="--on-error continue goes on after such"
            )

    def _spoilt_fragment(self, key: str, error: Exception) -> None:
        """What a damaged fragment lists is not known, so it is stored again: the night goes on, and says what is wrong (exit 4)."""
        if not isinstance(error, DamageError):
            raise error
        hint = "what it lists is stored again where it is needed; `mirror verify` says what else is damaged"
        self._problem(Problem(key, "damaged", error.why, hint))

    def _line(self, line: ChangeLine, size: int) -> None:
        if not self.job.each_path:
            return
        self.job.say(Change(line.symbol, show(line.path), size, show(line.moved_from) if line.moved_from else ""))

    def _say_if_moved(self, parent: log.Record | None) -> None:
        before = parent.body.get("source", {}) if parent else {}
        if before and before != self.identity:
            text = f"the last snapshot came from {_place(before)}, this one comes from {_place(self.identity)}"
            self.job.say(Notice("source-moved", text))

    def _estimate(self, estimate: Estimate, survey: Survey, parent: log.Record | None) -> None:
        """What the run would cost. The index is asked only where something of a tree goes."""
        from mirror.cost import Displaced, Ground
        from mirror.lingering import Lingering

        tree, publish, displaced = self.publishes, self.options.publish, Displaced()
        ground = Ground(self.reader, self._chunk_index(), parent)
        if tree and publish.history and parent is not None:
            self.dooms.learn(self.head)
            ground.chunks.refresh(self.dooms, self._spoilt_fragment)
            self._packed = self._kept_so_far(ground.chunks)
            lingering = Lingering(self.store, self.reader, self.state, 0, publish.lingers)
            displaced = estimate.displaced(ground, survey.plan, lingering)
        self.report.bytes_displaced = displaced.size
        if not is_folder_url(self.store.url):
            self.report.requests_planned = estimate.requests(ground, displaced, tree=tree)
        self._place_left(self.head)

    def _kept_so_far(self, index: ChunkIndex) -> int:
        """Bytes of packs, and of what a bucket keeps whole."""
        if not self.target.in_bucket:
            return index.packed
        from mirror.wholes import size_of_all

        return index.packed + size_of_all(self.store)

    def _place_left(self, head: log.Record | None) -> None:
        """What history takes in all, and what is left."""
        report, nowhere = self.report, self.target.new and self.options.dry_run
        free = None if nowhere else self.store.free_bytes()
        report.bytes_free = free[0] if free else None
        if self.publishes:
            known = self._packed + report.bytes_history if self._packed is not None else None
            report.bytes_history_total = history_total(self.state, head.number if head else 0, known)

    def _show(self, survey: Survey, parent: log.Record | None) -> None:
        """A dry run: the plan's lines. What may have changed or moved is read, so they are what a run would find."""
        from mirror.cost import Estimate
        from mirror.differ import site_lines

        report, counts = self.report, survey.counts
        with Estimate() as estimate:
            for line, size in site_lines(survey, self.site, self.reader, self.state, self._problem):
                estimate.add(line, size)
                self._line(line, size)
            self._estimate(estimate, survey, parent)
        totals = estimate.totals
        report.added, report.changed, report.deleted = totals[NEW], totals[CHANGED], totals[DELETED]
        report.moved, report.described = totals[MOVED], totals[DESCRIBED]
        report.same = counts.changed + counts.described + counts.same - report.changed - report.described
        report.files_read, report.bytes_read = counts.fetch_files, counts.fetch_bytes

    def _requests(self, of_workers: Requests) -> None:
        counts = self.store.counts + of_workers + (self._tree.requests if self._tree else Requests())
        self.report.requests = counts.by_kind
        self.report.bytes_uploaded = counts.bytes_up

    def _check_free(self, survey: Survey) -> None:
        options = self.options
        adopts = options.making.adopt and not survey.counts.parent  # what stands there already needs no room
        staged = self.tree.staged() if self.publishes else 0
        least = Least(options.min_free, options.min_free_percent)
        surely = (self.publishes and not adopts) or self.target.is_received  # there a draft comes on top of what is brought
        text = check_room(self.target, staged, survey.counts.fetch_bytes, least, surely=surely)
        if text:
            self.job.say(Notice("space", text))


def _is_large(counts: Counts) -> bool:
    return counts.fetch_bytes >= _SMALL_BYTES or counts.fetch_files >= _SMALL_FILES


def _named(totals: dict[str, int]) -> dict[str, int]:
    names = {NEW: "added", CHANGED: "changed", DELETED: "deleted", MOVED: "moved", DESCRIBED: "described"}
    return {name: totals[symbol] for symbol, name in names.items()}


def _place(source: dict[str, str]) -> str:
    return " ".join(source[key] for key in ("host", "path", "url") if key in source)
