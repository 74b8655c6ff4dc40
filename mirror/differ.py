"""What differs: between two snapshots, or between a site and a snapshot. Writes nothing anywhere.

Two snapshots are compared by walking their two trees side by side (sides.py), so the cost is that of the differences.

    for line, size in diff(TargetSpec(StoreSpec("/backup/www")), "41", "latest"):
        print(line.symbol, line.path, line.moved_from)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from mirror import log
from mirror.compare import kind_of, settle, symbol_of
from mirror.events import Advanced, Job, Notice, PhaseBegan, Problem, ProblemFound, RunStarted
from mirror.keys import show
from mirror.manifest import ChangeLine, Symlink
from mirror.moves import Moves, Row, row, row_spool
from mirror.pick import Reading
from mirror.plan import DELETED, DESCRIBED, NEW, SAME, Drop, Fetch, Put
from mirror.sides import differences
from mirror.site import Filter, Site, SiteSpec
from mirror.site.open import open_site
from mirror.snapshot import ManifestReader
from mirror.spool import Spool
from mirror.state import State
from mirror.survey import LookOptions, Survey, beside_store, check_all_ends, known_entries, known_of, look, rows, source_key
from mirror.target import TargetSpec


def diff(target: TargetSpec, left: str, right: str, job: Job | None = None) -> Iterator[tuple[ChangeLine, int]]:
    """What became of the snapshot `left` on the way to `right`: (line, size in bytes) by path. A moved file is one line, at its new
    path; a deleted one has the size that it had."""
    job = job or Job("diff")
    with Reading(target, job) as reading:
        one, other = reading.pick(left), reading.pick(right)
        job.say(RunStarted("diff", f"{reading.store.url} @{one.number}", f"{reading.store.url} @{other.number}"))
        key = reading.reader.content_key
        with row_spool() as found, reading.steady(one, other):
            for before, after in differences(reading.reader, one.manifest, other.manifest):
                if before is None or after is None:
                    symbol, entry = (NEW, after) if after is not None else (DELETED, before)
                    found.append(row(symbol, entry, key))  # type: ignore[arg-type]
                else:
                    found.append(row(symbol_of(before, after, reading.reader), after, key))
            yield from _lines(found, reading.target.state)


def diff_site(
    source: SiteSpec, target: TargetSpec, at: str = "latest", options: LookOptions | None = None, job: Job | None = None
) -> Iterator[tuple[ChangeLine, int]]:
    """What a sync would change in the snapshot `at`: (line, size in bytes) by path. Only suspected files are read whose size is
    that of their entry, or of a deleted file (they may have been moved). Deletions are left out where the scan was incomplete."""
    job = job or Job("diff")
    check_all_ends(source.url, target)
    site = open_site(source)
    with Reading(target, job) as reading:
        source = beside_store(source, bool(reading.target.tree))
        record = reading.pick(at)
        job.say(RunStarted("diff", site.url, f"{reading.store.url} @{record.number}"))
        job.say(PhaseBegan("scan"))

        def problem(found: Problem) -> None:
            job.say(ProblemFound(found))

        with reading.steady(record):
            state, key, how = reading.target.state, source_key(site.identity), options or LookOptions()
            known = known_of(reading.store, reading.reader, reading.head, record, state, key, how.routes)
            with look(site, source.filter, known, how, problem, lambda n, _: job.say(Advanced(n))) as survey:
                if survey.incomplete:
                    job.say(Notice("incomplete", "a folder could not be listed: deletions are not shown"))
                yield from site_lines(survey, site, reading.reader, reading.target.state, problem)


def site_lines(
    survey: Survey, site: Site, reader: ManifestReader, state: State, on_problem: Callable[[Problem], None]
) -> Iterator[tuple[ChangeLine, int]]:
    """A survey's lines (line, size), moves told apart, each suspected file settled by reading it: what a sync would find."""
    with row_spool() as settled:
        for item, one in zip(survey.plan, rows(survey.plan, site, reader), strict=True):
            if type(item) is Drop and survey.keeps_gone:
                continue
            if type(item) is Fetch and item.before is not None:
                verdict = settle(site, item)
                if verdict.problem:
                    on_problem(verdict.problem)
                if verdict.symbol == SAME:
                    continue
                one = one._replace(symbol=verdict.symbol)
            settled.append(one)
        yield from _lines(settled, state)


def mismatches(
    site: Site, filter: Filter, reader: ManifestReader, record: log.Record, on_problem: Callable[[Problem], None]
) -> Iterator[tuple[bytes, str, int]]:
    """Every file of the site read and held against a snapshot: (path, how it differs, bytes read) of each path that needed a look.
    How is empty where all is the same, DESCRIBED where nothing but times, mode or owner differ."""
    known = known_entries(reader, record.manifest, None, "")

    def told(problem: Problem) -> None:
        if problem.kind != "skipped":
            on_problem(problem)

    with look(site, filter, known, LookOptions(checksum=True, routes=None), told) as survey:
        for item in survey.plan:
            if not isinstance(item, Drop):
                yield item.entry.path, *_mismatch(site, item, record.number, on_problem)
            elif not survey.incomplete:
                yield item.entry.path, f"snapshot {record.number} has it, {site.url} does not", 0


def _mismatch(site: Site, item: Put | Fetch, number: int, on_problem: Callable[[Problem], None]) -> tuple[str, int]:
    there, here = item.before, item.entry
    if there is None:
        return f"{site.url} has it, snapshot {number} does not", 0
    if kind_of(there) != kind_of(here):
        return f"it is a {kind_of(here)}, in snapshot {number} it is a {kind_of(there)}", 0
    if isinstance(item, Fetch):
        verdict = settle(site, item)
        if verdict.problem:
            on_problem(verdict.problem)
        return f"its content is not that of snapshot {number}" if verdict.changed else verdict.symbol.strip(SAME), verdict.read
    if isinstance(there, Symlink) and isinstance(here, Symlink) and there.target != here.target:
        return f"it leads to {show(here.target)}, in snapshot {number} to {show(there.target)}", 0
    return DESCRIBED, 0


def _lines(found: Spool[Row], state: State) -> Iterator[tuple[ChangeLine, int]]:
    moves = Moves(state)
    try:
        moves.pair(found)
        yield from moves.lines(found)
    finally:
        moves.close()
