"""From a plan and its results to a snapshot: the new manifest's objects, its change list, and the record at the log.

Owns the write order (segments, nodes, change list, then the record that names them) and what a run does that lost the race
at the log. Before the record exists nothing has happened; after it, all that it names is durable.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from mirror import log
from mirror.compare import same_list
from mirror.envelope import SEGMENT
from mirror.errors import InTheWayError
from mirror.manifest import ChangeLine, Entry, File, Page, Ref, cut_entries
from mirror.moves import Moves, row, row_spool
from mirror.plan import DELETED, MOVED, NEW, Fetch, Item, Put
from mirror.scan import memory_of
from mirror.site.routes import Routes
from mirror.snapshot import ManifestReader, ManifestWriter
from mirror.spool import Sorter
from mirror.state import State
from mirror.store import WritableStore
from mirror.survey import Survey
from mirror.transfer.merge import Merged, Merger
from mirror.transfer.send import decode_fetched
from mirror.workers import Background

MOST_PROBLEMS = 100  # of a run are kept in its record


@dataclass
class Outcome:
    """A manifest that is written but not yet named by the log. rows: what changed; close them."""

    root: Ref
    changed: bool
    totals: dict[str, int]
    changes: Ref | None
    lines: Any = None


@dataclass
class Committer:
    """Writes the manifest of one attempt. known: objects of the parent, by digest; routes: where the entries' headers are from."""

    store: WritableStore
    state: State
    reader: ManifestReader
    parent: log.Record | None
    epoch: int
    source: str
    on_problem: Callable[[Any], None]
    on_line: Callable[[Any, int], None]
    transfers: int = 8
    routes: Routes | None = None
    written: list[str] = field(default_factory=list)

    def write(self, survey: Survey, results: Sorter) -> Outcome:
        """Merge and write. The returned manifest is the parent's where nothing changed after all."""
        known = {ref.digest: ref.epoch for ref, _ in self.reader.nodes(self.parent.manifest, SEGMENT)} if self.parent else {}
        background = Background(self.transfers, 2 * self.transfers)
        try:
            writer = ManifestWriter(self.store, self.epoch, known, self.state, background)
            self.written = writer.written
            outcome = self._merge(writer, survey, results)
            background.settle()
            return outcome
        finally:
            background.close()

    def _merge(self, writer: ManifestWriter, survey: Survey, results: Sorter) -> Outcome:
        with row_spool() as rows:
            merger = Merger(
                writer.content,
                same_list,
                self.on_problem,
                (lambda symbol, entry: rows.append(row(symbol, entry, self.reader.content_key))) if self.parent else self._first,
                survey.keeps_gone,
                in_the_way(survey, self.state),
                survey.never_delete,
            )
            entries = merger.run(
                self.reader.entries(self.parent.manifest) if self.parent else (),
                survey.validators,
                survey.plan,
                (decode_fetched(data) for _, data in results),
            )
            with self.state.together():
                root = self._segments(writer, entries)
            moves = Moves(self.state)
            try:
                counts = dict(merger.counts)
                counts[MOVED] = moves.pair(rows)
                counts[NEW] -= counts[MOVED]
                counts[DELETED] -= counts[MOVED]
                changes = None
                if merger.changed_something and self.parent is not None:
                    changes = writer.changes(self._lines(moves.lines(rows)))
            finally:
                moves.close()
        return Outcome(root, merger.changed_something, counts, changes)

    def _first(self, symbol: str, entry: Entry) -> None:
        """A path of a first snapshot: everything is new, nothing moved, and no change list repeats the manifest."""
        self.on_line(ChangeLine(symbol, entry.path), entry.size if isinstance(entry, File | Page) else 0)

    def _lines(self, lines: Iterable[tuple[Any, int]]) -> Iterator[Any]:
        for line, size in lines:
            self.on_line(line, size)
            yield line

    def _segments(self, writer: ManifestWriter, merged: Iterator[Merged]) -> Ref:
        held: list[Merged] = []

        def entries() -> Iterator[Entry]:
            for entry, pair in merged:
                held.append((entry, pair))
                yield entry

        refs = []
        for piece in cut_entries(entries()):
            ref = writer.put(SEGMENT, piece)
            # cut_entries has taken just the entries of this segment: they, and no others, are in `held`.
            memory = memory_of((e for e, _ in held), (pair for _, pair in held), self.routes)
            self.state.keep_scanned(self.source, ref.digest, memory)
            held.clear()
            refs.append(ref)
        return writer.tree(refs, root_is_node=True)


def in_the_way(survey: Survey, state: State) -> Callable[[bytes], bool]:
    """When nothing may be deleted: whether a path that is gone must go all the same, as a file is a folder now or the reverse. What
    is new is held in a temporary table of the local state, however much it is."""
    if not survey.keeps_gone:
        return lambda path: False
    db = state.db
    db.execute("DROP TABLE IF EXISTS temp.fresh")
    db.execute("CREATE TEMP TABLE fresh (path BLOB PRIMARY KEY) WITHOUT ROWID")
    db.executemany("INSERT OR IGNORE INTO fresh VALUES (?)", ((item.entry.path,) for item in survey.plan if _is_new(item)))

    def is_new(path: bytes) -> bool:
        return db.execute("SELECT 1 FROM fresh WHERE path = ?", (path,)).fetchone() is not None

    def blocked(path: bytes) -> bool:
        if not path.endswith(b"/") and is_new(path + b"/"):
            return True
        above = path
        while b"/" in above:
            above = above[: above.rindex(b"/")]
            if is_new(above):
                return True
        return False

    return blocked


def _is_new(item: Item) -> bool:
    return (type(item) is Fetch and item.before is None) or (type(item) is Put and item.symbol == NEW)


@dataclass
class Ground:
    """What an attempt stands on, to be looked at again after a lost race. used: names that it reuses; written: that it wrote."""

    base: log.Record | None
    parent: log.Record | None
    used: set[str]
    written: set[str]
    source: dict[str, str]


def append_snapshot(
    store: WritableStore, dooms: log.Dooms, ground: Ground, draft: Callable[[log.Record | None], dict[str, Any]]
) -> log.Record | None:
    """Append the snapshot, again and again where losing the race did no harm; None when the attempt must be made anew.

    After a lost race *every* record since is read. The ground has moved when a prune doomed something used or written, when a hold
    began or ended, or when the parent is no longer live (its unchanged entries are reused without naming places; while it lives no
    prune can have doomed what it needs). InTheWayError when another source was mirrored into this target meanwhile.
    """
    base = ground.base
    while True:
        result = log.append(store, draft(base))
        if isinstance(result, log.Record):
            return result
        head = log.read_head(store, result.winner.number)
        assert head is not None
        moved = False
        for record in log.records_back(store, head, (base.number if base else 0) + 1):
            moved = moved or record.kind in (log.HOLD, log.IMPORT, log.PUBLISHING)
            if record.kind == log.SNAPSHOT:
                if record.body.get("source") != ground.source and not record.body.get("rollback_of"):
                    raise InTheWayError(
                        "cannot append the snapshot",
                        where=store.url,
                        why=f"another source ({_place(record)}) was mirrored into it meanwhile, as snapshot {record.number}",
                        hint="one target holds one site: stop one of the two",
                    )
                moved = True
        if base is not None:
            log.check_chain(store, base, record)
        dooms.learn(head)
        if ground.parent is not None and ground.parent.number not in head.live:
            moved = True
        if moved or any(dooms(name) for name in ground.used) or any(dooms(name) for name in ground.written):
            return None
        base = head


def _place(record: log.Record) -> str:
    source = record.body.get("source", {})
    return " ".join(str(source[key]) for key in ("host", "path", "url") if key in source)


def problem_lines(problems: list[Any]) -> list[dict[str, str]]:
    """The first problems of a run as its record keeps them."""
    return [{"path": p.path, "kind": p.kind, "why": p.why} for p in problems[:MOST_PROBLEMS]]
