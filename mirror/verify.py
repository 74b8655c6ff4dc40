"""`mirror verify`: whether all that a target promises is there and right. Reads, changes nothing.

    report = verify(TargetSpec(StoreSpec("/backup/www")), VerifyOptions(part=(3, 7)))
    report.problems, report.exit_code

In order: mirror.json, the log, the fragments of the index, the trees of all live snapshots, the packs; then, if anything is
damaged, which files of which snapshots that means. Damage in one place does not stop the rest. Each damaged object is one problem,
and so is each damaged file. Before an object is called damaged the head is read again: what was doomed meanwhile may be gone.

Packs are read whole, by worker processes. Which ones were found right is remembered on this host, so that the next run goes on
where one was stopped; a run that ends forgets it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from mirror import log
from mirror.chain import Chain, Snapshot
from mirror.differ import mismatches
from mirror.drift import LiveCheck, busy_paths, path_digest
from mirror.envelope import CHANGES, NAMES
from mirror.errors import DamageError, InterruptedRunError, NoListing, NotFound, TargetMissingError, UsageError
from mirror.events import Advanced, Job, PhaseBegan, Problem, ProblemFound, RunStarted
from mirror.findings import Damage, Tracer, Trees
from mirror.keys import INDEX, MIRROR_KEY, PACK, ObjectName, show
from mirror.lookup import GONE, ChunkIndex
from mirror.manifest import decode_changes, decode_names
from mirror.names import fragments, told
from mirror.pack import Slot
from mirror.pick import apart, pick
from mirror.plan import DESCRIBED
from mirror.scrub import PLACE, Expected, Scrubbed, in_part, release, scrub
from mirror.site import SiteSpec
from mirror.site.open import open_site
from mirror.snapshot import ManifestReader
from mirror.state import State
from mirror.store import Stat
from mirror.store.open import is_folder_url, open_store
from mirror.store.wrap import CountingStore, Counts
from mirror.survey import beside_store, check_all_ends
from mirror.tally import VerifyReport
from mirror.target import Target, TargetSpec, live_spec, located, open_target
from mirror.wholes import listed
from mirror.workers import Crew

_TOGETHER = 100  # suspicions that one look at the head confirms
_PAGE = 1000
_SMALL = 48 << 20  # packs of fewer bytes are not worth a process
_RELOADS = 20
_BRING_BACK = "bring it back from another copy of this target"


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """quick: names and sizes of packs only. part: (k, n), only packs of the k-th of n parts, always the same ones. against: a site
    to compare with the snapshot `at`. workers: processes, 0 for none. max_duration: seconds. public_url: where people see the live
    folder of a tree."""

    quick: bool = False
    part: tuple[int, int] | None = None
    against: SiteSpec | None = None
    at: str = "latest"
    workers: int = 2
    max_duration: float | None = None
    public_url: str = ""


def verify(target: TargetSpec, options: VerifyOptions | None = None, job: Job | None = None) -> VerifyReport:
    """Check the target. Damage is reported; raised is only what keeps us from looking (no target, no rights, no connection)."""
    options, job = options or VerifyOptions(), job or Job("verify")
    began = time.monotonic()
    if options.part and not 1 <= options.part[0] <= options.part[1]:
        raise UsageError("cannot verify part", where="/".join(map(str, options.part)), hint="say K/N, K from 1 to N")
    if options.against:
        check_all_ends(options.against.url, target)
    report = VerifyReport(quick=options.quick, part="/".join(map(str, options.part or ())))
    job.say(RunStarted("verify", options.against.url if options.against else "", target.store.url))
    deadline = began + options.max_duration if options.max_duration is not None else None
    try:
        with ExitStack() as stack:
            stack.callback(release)
            run = _Verify(stack, target, options, job, report, deadline)
            run.run()
            report.requests = (run.store.counts + run.counts).by_kind
    except KeyboardInterrupt:
        raise InterruptedRunError("interrupted", hint="packs found right are remembered; run it again to go on") from None
    report.seconds = time.monotonic() - began
    return report


class _Verify:
    """One run. `suspects` are (key, why) that wait for a look at the head; manifests and files wait in `damage` for the end."""

    def __init__(
        self, stack: ExitStack, spec: TargetSpec, options: VerifyOptions, job: Job, report: VerifyReport, deadline: float | None
    ) -> None:
        self.options, self.job, self.report, self.deadline = options, job, report, deadline
        self.given = spec
        self.spec, self.tree = located(spec)
        self.suspects: list[tuple[str, str]] = []
        self.told: set[str] = set()  # objects
        self.head: log.Record | None = None
        self.snapshots: dict[int, Snapshot] = {}
        self.counts = Counts()
        self.stack = stack
        self.store, self.uuid, self.site = self._open(stack)
        report.target, report.site, job.site = self.store.url, self.site, self.site
        state = State(None)  # nothing of what this host remembers counts as evidence
        stack.callback(state.close)
        self.db = state.db
        self.index, self.dooms = ChunkIndex(state, self.store), log.Dooms(self.store, state)
        self.reader, self.damage = ManifestReader(self.store, None), Damage(state.db)

    def run(self) -> None:
        """Everything, in order."""
        if self.options.public_url:
            self._hidden(self.options.public_url)
        self.job.say(PhaseBegan("read"))
        chain = Chain(self.store, self.uuid, lambda key, why: self.suspects.append((key, why)))
        chain.read()
        self.report.records, self.report.snapshots = chain.records, len(chain.snapshots)
        self.head, self.snapshots = chain.head, chain.snapshots
        self._flush()
        if self.head is None:
            return
        self._refresh()
        self._trees()
        self._packs()
        self._name_files()
        if self.options.against is not None:
            self._against(self.options.against)

    # -- the target and its head ---------------------------------------------------------------------------------

    def _open(self, stack: ExitStack) -> tuple[CountingStore, str, str]:
        """(store, uuid, site). A spoilt mirror.json, or a missing one beside a log, is a finding like any other."""
        try:
            target: Target = stack.enter_context(open_target(self.given, dry_run=True))
            self.tree = target.tree  # of one that a `mirror serve` holds only its mirror.json tells that it is one
            return target.store, target.uuid, target.site
        except (DamageError, TargetMissingError) as error:
            store = CountingStore(open_store(self.spec.store))
            if not log.numbers(store):
                raise
            why = error.why if isinstance(error, DamageError) else "it is not there, and there is a log"
            self._problem(MIRROR_KEY, why, _BRING_BACK)
            return store, "", ""

    def _flush(self) -> None:
        """Tell the suspects, but for those that were doomed meanwhile."""
        if not self.suspects:
            return
        self._look_again()
        for key, why in self.suspects:
            if not (ObjectName.parse(key) and self.dooms(key)):
                self._problem(key, why, _BRING_BACK)
        self.suspects = []

    def _look_again(self) -> None:
        if self.head is None:
            return
        try:
            head = log.read_head(self.store, self.head.number)
        except DamageError:
            return
        if head is not None and head.number > self.head.number:
            self.head = head
            self.snapshots = {number: record for number, record in self.snapshots.items() if number in head.live}
            self._refresh()

    def _refresh(self) -> None:
        """Dooms and index as of the head."""
        known = None
        for _ in range(_RELOADS):
            stands = known is not None and known == self.head
            try:
                self._learn()
                self.index.refresh(self.dooms, self._spoilt_fragment, fragments(self.store, self.head), gone_is_damage=stands)
            except NotFound as error:  # a fragment went between listing and reading: a prune that this head does not know
                if stands:
                    raise DamageError("cannot read the index of", where=f"{self.store.url}/{error}", why=GONE) from error
                known = self.head
                self.head = log.read_head(self.store, self.head.number if self.head else 0) or self.head
            else:
                break
        self._told()
        self.db.execute("CREATE INDEX IF NOT EXISTS chunk_pack ON chunk (pack, block, offset)")
        self.report.fragments, self.report.packs = (
            self.db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in ("fragment", "pack")
        )

    def _told(self) -> None:
        """Fragments that the log names and a listing has not."""
        try:
            named = told(self.store, self.head)
        except (NoListing, NotFound, DamageError):  # told elsewhere, or by nobody
            return
        for key in sorted(named - self.index.listed):
            if (name := ObjectName.parse(key)) and name.place == INDEX and not self.dooms(key):
                self._problem(key, GONE, _BRING_BACK)

    def _learn(self) -> None:
        try:
            self.dooms.learn(self.head)
        except DamageError as error:
            self._problem(
                error.where.removeprefix(f"{self.store.url}/"), f"{error.why}: what was pruned is not fully known", _BRING_BACK
            )
        except NotFound as error:
            self._problem(str(error), "it is not there: what was pruned is not fully known", _BRING_BACK)

    def _spoilt_fragment(self, key: str, error: Exception) -> None:
        self._problem(key, error.why if isinstance(error, DamageError) else str(error), _BRING_BACK)

    def _problem(self, path: str, why: str, hint: str = "", kind: str = "damaged") -> None:
        """Tell a problem; an object that was told already is not told again."""
        if hint and path in self.told:
            return
        if hint:
            self.told.add(path)
        self._report(Problem(path, kind, why, hint))

    def _report(self, problem: Problem) -> None:
        self.report.add(problem)
        self.job.say(ProblemFound(problem))

    # -- manifests -----------------------------------------------------------------------------------------------

    def _trees(self) -> None:
        total = sum(snapshot.manifest.entries for snapshot in self.snapshots.values())
        self.job.say(PhaseBegan("read", total))
        self.live = self._live() if self.tree and self.snapshots else None
        elsewhere = self.live.has_key if self.live else _nowhere
        trees = Trees(self.reader, self.damage, self._suspect, lambda count: self.job.say(Advanced(count)), elsewhere)
        for number, snapshot in self.snapshots.items():
            trees.check(snapshot.manifest)
            if snapshot.changes is not None:
                trees.check_lines(snapshot.changes, CHANGES, decode_changes, f"the list of changes of snapshot {number}")
        if self.live is not None:  # older ones need not be there any more
            newest = max(self.snapshots.items())[1]
            for root in (newest.standing, *newest.lingers):
                trees.check(root)
        number = self.head.epoch if self.head else 0
        while number:
            try:
                prune = log.read_record(self.store, number)
            except (DamageError, NotFound):
                break  # told already
            if prune.kind != log.PRUNE:
                break
            trees.check_lines(log.ref_of(prune.body["dooms"]), NAMES, decode_names, f"what record {number} dooms")
            number = int(prune.body["prune"])
        self.report.objects = trees.objects
        self._flush()

    # -- the live tree -------------------------------------------------------------------------------------------

    def _live(self) -> LiveCheck:
        """Hold the live tree against the newest snapshot."""
        number, newest = max(self.snapshots.items())
        in_bucket = not is_folder_url(self.tree)
        busy = busy_paths(self.store, self.head, self.reader, self.db, in_bucket)
        live = live_spec(self.spec.store, self.tree)
        check = LiveCheck(live, self.reader, self.db, number, self._reads, busy, self._report, self.job, in_bucket)
        check.run(newest.standing)
        if in_bucket:
            check.look_at_wholes(listed(self.store, self.dooms, self.head), lambda key, why: self._problem(key, why, _BRING_BACK))
        self.report.live_files = check.files
        return check

    def _hidden(self, public: str) -> None:
        """Whether people cannot fetch what only we are to read."""
        from mirror.public import found_open

        if found := found_open(public, self.tree, self.store.url, self.uuid, self.job):
            self._problem(found.url, "everybody can read it, and so deleted pages", found.hint, kind="public")

    def _reads(self, path: bytes) -> bool:
        """Whether the content of a live file is read by this run."""
        if self.deadline is not None and time.monotonic() >= self.deadline:
            self.report.finished = False
        return self.report.finished and not self.options.quick and in_part(path_digest(path), self.options.part)

    def _suspect(self, key: str, why: str) -> None:
        self.suspects.append((key, why))

    # -- packs ---------------------------------------------------------------------------------------------------

    def _packs(self) -> None:
        self.db.execute("CREATE TEMP TABLE there (name TEXT PRIMARY KEY, size INTEGER) WITHOUT ROWID")
        there = (stat for stat in self._there() if ObjectName.parse(stat.key) and not self.dooms(stat.key))
        self.db.executemany("INSERT OR IGNORE INTO there VALUES (?, ?)", there)
        query = "SELECT count(*) FROM there WHERE name NOT IN (SELECT name FROM pack)"
        self.report.packs_unlisted = self.db.execute(query).fetchone()[0]
        self._absent()
        if not self.options.quick:
            self._scrub()
        self._flush()

    def _there(self) -> Iterator[Stat]:
        """The packs that are there. Where nothing can be listed: those of the index, each looked at if it will not be read."""
        try:
            return self.store.list(f"{PACK}/")
        except NoListing:
            known = (Stat(name, size) for _, name, size, _ in self._pages())
        if not self.options.quick:
            return known
        return self._looked_at([stat.key for stat in known])

    def _looked_at(self, keys: Sequence[str]) -> Iterator[Stat]:
        with ThreadPoolExecutor(self.spec.store.transfers) as pool:
            for key, size in zip(keys, pool.map(self.store.size, keys), strict=True):
                if size is not None:
                    yield Stat(key, size)

    def _absent(self) -> None:
        """What the listing alone tells: packs that are not there and, with --quick, those of another size."""
        for no, name, size, found in self._pages():
            if found is None:
                self._lost(name, "it is not there", self._expected(no, name, size).ids)
            elif self.options.quick and found != size:
                query = "SELECT id FROM chunk JOIN block ON block.pack = chunk.pack AND block.no = chunk.block "
                cut = self.db.execute(query + "WHERE chunk.pack = ? AND block.offset + block.stored > ?", (no, found))
                self._lost(name, f"it has {found:,} bytes, {size:,} are right", b"".join(id_ for (id_,) in cut))

    def _lost(self, pack: str, why: str, ids: bytes) -> None:
        self.suspects.append((pack, why))
        self.damage.lose(ids, pack)
        if len(self.suspects) >= _TOGETHER:
            self._flush()

    def _pages(self) -> Iterator[tuple[int, str, int, int | None]]:
        """(number, key, size, size in the listing) of each pack of the index."""
        last = -1
        query = (
            "SELECT no, pack.name, pack.size, there.size FROM pack LEFT JOIN there USING (name) WHERE no > ? ORDER BY no LIMIT ?"
        )
        while page := self.db.execute(query, (last, _PAGE)).fetchall():
            yield from page
            last = page[-1][0]

    def _scrub(self) -> None:
        self.state = self.stack.enter_context(apart(self.spec, "verify", self.uuid or "unknown"))
        todo = [0, 0]
        for _, name, size, found in self._pages():
            if found is not None and self._wanted(name):
                todo = [todo[0] + 1, todo[1] + size]
        self.job.say(PhaseBegan("check", *todo))
        alone = todo[1] < _SMALL or self.spec.store.url.startswith("memory://")
        with Crew(0 if alone else min(self.options.workers, todo[0])) as crew:
            for _, scrubbed in crew.run(scrub, self._tasks()):
                self._scrubbed(scrubbed)
        if self.report.finished:
            done = [row for row in self.state.db.execute("SELECT pack FROM proven").fetchall() if self._wanted(row[0])]
            self.state.db.executemany("DELETE FROM proven WHERE pack = ?", done)

    def _wanted(self, pack: str) -> bool:
        name = ObjectName.parse(pack)
        return name is not None and in_part(name.digest, self.options.part)

    def _tasks(self) -> Iterator[tuple[Any, ...]]:
        for no, name, size, found in self._pages():
            if found is None or not self._wanted(name):
                continue
            proven = self.state.db.execute("SELECT verdict FROM proven WHERE pack = ?", (name,)).fetchone()
            if proven and proven[0] == str(found):
                self.report.packs_resumed += 1
                self.job.say(Advanced(1, size))
                continue
            if self.deadline is not None and time.monotonic() >= self.deadline:
                self.report.finished = False
                return
            yield self.spec.store, self._expected(no, name, size)

    def _expected(self, no: int, name: str, size: int) -> Expected:
        blocks = [
            Slot(*row) for row in self.db.execute("SELECT offset, stored, plain FROM block WHERE pack = ? ORDER BY no", (no,))
        ]
        query = "SELECT DISTINCT block, offset, length, id FROM chunk WHERE pack = ? ORDER BY block, offset"
        rows = self.db.execute(query, (no,)).fetchall()
        return Expected(name, size, blocks, b"".join(row[3] for row in rows), b"".join(PLACE.pack(*row[:3]) for row in rows))

    def _scrubbed(self, scrubbed: Scrubbed) -> None:
        report = self.report
        report.packs_checked += 1
        report.bytes_read += scrubbed.read
        self.counts += scrubbed.counts
        self.job.say(Advanced(1, scrubbed.read))
        if scrubbed.why:
            self._lost(scrubbed.key, scrubbed.why, scrubbed.lost)
        else:
            self.state.db.execute("INSERT OR REPLACE INTO proven VALUES (?, ?)", (scrubbed.key, str(scrubbed.read)))

    # -- what it means -------------------------------------------------------------------------------------------

    def _name_files(self) -> None:
        self._look_again()
        self.damage.settle()
        if not self.damage.any:
            return
        tracer = Tracer(self.reader, self.damage, self.live.has_key if self.live else _nowhere)
        for number, snapshot in self.snapshots.items():
            tracer.trace(number, snapshot.manifest)
        for key, why in self.damage.objects():
            self._problem(key, why, _BRING_BACK)
        for path, why in self.damage.files():
            self.report.files_damaged += 1
            self._problem(show(path), why)

    def _against(self, source: SiteSpec) -> None:
        source = beside_store(source, bool(self.tree))
        site = open_site(source)
        self.report.against = site.url
        record = pick(self.store, self.head, self.options.at)
        self.job.say(PhaseBegan("check", record.manifest.entries, record.manifest.plain))
        # What the snapshot left out is no difference, unless other rules are asked for.
        recorded = tuple((str(verb), str(pattern)) for verb, pattern in record.body.get("filters", ()))
        filter = source.filter if source.filter.rules else replace(source.filter, rules=recorded)
        for path, how, read in mismatches(site, filter, self.reader, record, self._report):
            self.report.compared += 1
            self.job.say(Advanced(1, read))
            if how == DESCRIBED:
                self.report.described += 1
            elif how:
                self._problem(show(path), how, kind="differs")


def _nowhere(content: bytes) -> bool:
    """A target without a live tree."""
    return False
