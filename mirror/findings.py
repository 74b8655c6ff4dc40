"""What a verify has found broken, and what that means: from chunks and manifest objects to files and the snapshots that hold them.

The tables are temporary and on disk, so damage may be as large as the target. First every distinct object of the live snapshots'
trees is read once, and every chunk asked for in the index (`Trees`). Which files are affected is worked out at the end, and only if
something was found: a walk over the live snapshots that skips what is known to be whole (`Tracer`).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice
from typing import Any

from mirror.chunking import ChunkId
from mirror.envelope import CHUNKS, NODE, SEGMENT, Kind
from mirror.errors import DamageError, NotFound
from mirror.keys import MANIFEST, ObjectName, show
from mirror.manifest import Entry, File, Page, Ref, decode_node, decode_segment, split_ids
from mirror.pick import ranges_text
from mirror.snapshot import ManifestReader, content_key

_ASK = 500
_HELD_IDS = 20_000
_UNREADABLE, _UNPLACED = -1, -2
NOWHERE = ""  # instead of a pack's key: the index has no place for the chunk

_TABLES = """
CREATE TEMP TABLE seen (name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TEMP TABLE list (name TEXT PRIMARY KEY, size INTEGER) WITHOUT ROWID;
CREATE TEMP TABLE broken (name TEXT PRIMARY KEY, why TEXT, first BLOB, entries INTEGER) WITHOUT ROWID;
CREATE TEMP TABLE hurt (segment TEXT, path BLOB, why TEXT, PRIMARY KEY (segment, path)) WITHOUT ROWID;
CREATE TEMP TABLE lost (id BLOB, pack TEXT, PRIMARY KEY (id, pack)) WITHOUT ROWID;
CREATE TEMP TABLE gone (id BLOB PRIMARY KEY, pack TEXT) WITHOUT ROWID;
CREATE TEMP TABLE whole (name TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TEMP TABLE victim (segment TEXT, path BLOB, why TEXT, PRIMARY KEY (segment, path)) WITHOUT ROWID;
CREATE TEMP TABLE holder (path BLOB, why TEXT, snapshot INTEGER, PRIMARY KEY (path, why, snapshot)) WITHOUT ROWID;
CREATE TEMP TABLE breaks (name TEXT, snapshot INTEGER, PRIMARY KEY (name, snapshot)) WITHOUT ROWID;
"""


def rows_of(db: sqlite3.Connection, select: str, values: Sequence[bytes]) -> Iterator[tuple[Any, ...]]:
    """The rows of a SELECT that ends in `IN`, for any number of values."""
    for at in range(0, len(values), _ASK):
        some = values[at : at + _ASK]
        yield from db.execute(f"{select} ({','.join('?' * len(some))})", some)


class Damage:
    """The tables of one verify, in the database that has its index. Not shared between threads."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self.db = db
        db.executescript(_TABLES)

    def lose(self, ids: bytes, pack: str) -> None:
        """The chunks of these joined ids cannot be had from that pack."""
        self.db.executemany("INSERT OR IGNORE INTO lost VALUES (?, ?)", ((id_, pack) for id_ in split_ids(ids)))

    def settle(self) -> None:
        """Work out which chunks are gone: those lost in every pack that the index has them in, as it is now."""
        self.db.execute("DELETE FROM gone")
        self.db.execute(
            "INSERT OR IGNORE INTO gone SELECT id, max(pack) FROM lost WHERE NOT EXISTS ("
            "SELECT 1 FROM chunk JOIN pack ON pack.no = chunk.pack WHERE chunk.id = lost.id AND NOT EXISTS ("
            "SELECT 1 FROM lost AS other WHERE other.id = chunk.id AND other.pack = pack.name)) GROUP BY id"
        )

    @property
    def any(self) -> bool:
        """Whether any file or manifest object is affected."""
        return any(self.db.execute(f"SELECT EXISTS (SELECT 1 FROM {table})").fetchone()[0] for table in ("gone", "hurt", "broken"))

    def break_(self, ref: Ref, why: str) -> None:
        """A manifest object cannot be used."""
        self.db.execute("INSERT OR IGNORE INTO broken VALUES (?, ?, ?, ?)", (ref.name.key(), why, ref.first, ref.entries))

    def objects(self) -> Iterator[tuple[str, str]]:
        """(key, what is wrong and in which snapshots) of each damaged manifest object that a live snapshot needs."""
        query = "SELECT name, why, first, entries, snapshot FROM breaks JOIN broken USING (name) ORDER BY name, snapshot"
        for (name, why, first, entries), rows in groupby(self.db.execute(query), lambda row: row[:4]):
            yield name, f"{why}; {entries:,} entries from {show(first)} on are affected in {_snapshots(row[4] for row in rows)}"

    def files(self) -> Iterator[tuple[bytes, str]]:
        """(path, what is wrong and in which snapshots) of each damaged file."""
        query = "SELECT path, why, snapshot FROM holder ORDER BY path, why, snapshot"
        for path, rows in groupby(self.db.execute(query), lambda row: row[0]):
            parts = [f"in {_snapshots(row[2] for row in some)}: {why}" for why, some in groupby(rows, lambda row: row[1])]
            yield path, "damaged " + "; ".join(parts)


@dataclass
class Trees:
    """Reads the trees of snapshots, every distinct object once, and asks the index for every chunk. What is wrong with manifests
    goes to `damage`, what is wrong with lists that belong to them to on_problem(key, why). elsewhere: whether a file of this
    content (`content_key`) is to be had without packs, from a live tree."""

    reader: ManifestReader
    damage: Damage
    on_problem: Callable[[str, str], None]
    on_entries: Callable[[int], None] = lambda count: None
    elsewhere: Callable[[bytes], bool] = lambda content: False
    objects: int = 0
    _held: list[tuple[str, bytes, int, list[ChunkId]]] = field(default_factory=list)
    _held_ids: int = 0

    def check(self, root: Ref) -> None:
        """Check a manifest from its root down."""
        self._manifest(root, 0, None)
        self._ask()

    def check_lines(self, root: Ref, kind: Kind, decode: Callable[[bytes, str], object], what: str) -> None:
        """Check a change list or list of names. No file needs it: a damaged one is told as it is. what: it is, in words."""
        try:
            for ref, found in self.reader.nodes(root, kind):
                if self._is_new(ref) and found == kind:
                    decode(self.reader.object(ref.name, (kind,))[1], ref.name.key())
        except (DamageError, NotFound) as error:
            key = root.name.key()
            self.on_problem(_key(error, key), f"{_why(error)}; it belongs to {what}")

    # -- manifests -----------------------------------------------------------------------------------------------

    def _is_new(self, ref: Ref) -> bool:
        fresh = self.damage.db.execute("INSERT OR IGNORE INTO seen VALUES (?)", (ref.name.key(),)).rowcount > 0
        self.objects += fresh
        return fresh

    def _manifest(self, ref: Ref, above: int, end: bytes | None) -> None:
        """Check what is below a ref. above: level of the node that it stands in, 0 for a root. end: the path that comes after."""
        if not self._is_new(ref):
            return
        where = ref.name.key()
        try:
            kind, payload = self.reader.object(ref.name, (SEGMENT,) if above == 1 else (NODE,) if above else (NODE, SEGMENT))
            if kind == SEGMENT:
                self._segment(ref, decode_segment(payload, where), end)
                return
            level, refs = decode_node(payload, where)
            firsts = [below.first for below in refs]
            if above and (level != above - 1 or firsts[:1] != [ref.first]):
                raise DamageError("", why="it does not fit the node above it")
            if sorted(set(firsts)) != firsts or (firsts and end is not None and firsts[-1] >= end):
                raise DamageError("", why="its paths are out of order")
            if (sum(below.entries for below in refs), sum(below.plain for below in refs)) != (ref.entries, ref.plain):
                raise DamageError("", why="its counts do not add up")
        except (DamageError, NotFound) as error:
            self.damage.break_(ref, _why(error))
            return
        for below, after in zip(refs, [*firsts[1:], end], strict=True):
            self._manifest(below, level, after)

    def _segment(self, ref: Ref, entries: list[Entry], end: bytes | None) -> None:
        contents = [entry for entry in entries if isinstance(entry, File | Page)]
        if not entries or (len(entries), entries[0].path) != (ref.entries, ref.first) or sum(e.size for e in contents) != ref.plain:
            raise DamageError("", why="it is not what its node says")
        if end is not None and entries[-1].path >= end:
            raise DamageError("", why="its paths reach into the next segment")
        self.on_entries(len(entries))
        name = ref.name.key()
        for entry in contents:
            if entry.more is not None:
                self._long(name, entry, entry.more)
                continue
            self._held.append((name, entry.path, entry.size, split_ids(entry.chunks)))
            self._held_ids += len(entry.chunks) // 32
            if self._held_ids >= _HELD_IDS:
                self._ask()

    # -- chunks --------------------------------------------------------------------------------------------------

    def _ask(self) -> None:
        """Ask the index for the chunks of the entries held."""
        lengths = self._lengths({id_ for *_, ids in self._held for id_ in ids})
        for segment, path, size, ids in self._held:
            found = sum(lengths.get(id_, 0) for id_ in ids)
            missing = [id_ for id_ in ids if id_ not in lengths]
            if missing and not self.elsewhere(content_key(b"".join(ids))):
                self.damage.lose(b"".join(missing), NOWHERE)
            elif not missing and found != size:
                self._hurt(segment, path, _sizes(found, size))
        self._held, self._held_ids = [], 0

    def _lengths(self, ids: set[ChunkId]) -> dict[bytes, int]:
        """Length by id, for those that the index has a place for."""
        return dict(rows_of(self.damage.db, "SELECT id, length FROM chunk WHERE id IN", list(ids)))

    def _long(self, segment: str, entry: File | Page, root: Ref) -> None:
        size = self._list(root, entry)
        if size == _UNREADABLE:
            self._hurt(segment, entry.path, f"its list of chunks {root.name.key()} is damaged")
        elif size != entry.size and size != _UNPLACED:
            self._hurt(segment, entry.path, _sizes(size, entry.size))

    def _list(self, root: Ref, entry: File | Page) -> int:
        """The bytes of a chunk list's chunks together; each list is read once."""
        key = root.name.key()
        row = self.damage.db.execute("SELECT size FROM list WHERE name = ?", (key,)).fetchone()
        if row is None:
            row = (self._read_list(root, key, entry),)
            self.damage.db.execute("INSERT INTO list VALUES (?, ?)", (key, *row))
        return int(row[0])

    def _read_list(self, root: Ref, key: str, entry: File | Page) -> int:
        size = count = 0
        placed = True
        try:
            live = self.elsewhere(self.reader.content_key(entry))
            for leaf in self.reader.leaves(root, CHUNKS):
                _, payload = self.reader.object(leaf.name, (CHUNKS,))
                self.objects += 1
                if len(payload) % 32 or len(payload) // 32 != leaf.entries:
                    raise DamageError("", where=leaf.name.key(), why="it is not as long as the node above it says")
                ids = split_ids(payload)
                lengths = self._lengths(set(ids))
                missing = {id_ for id_ in ids if id_ not in lengths}
                placed = placed and not missing
                if missing and not live:
                    self.damage.lose(b"".join(missing), NOWHERE)
                size += sum(lengths.get(id_, 0) for id_ in ids)
                count += len(ids)
        except (DamageError, NotFound) as error:
            self.on_problem(_key(error, key), _why(error))
            return _UNREADABLE
        if count != root.entries:
            self.on_problem(key, f"it has {count:,} chunks, its entry says {root.entries:,}")
            return _UNREADABLE
        return size if placed else _UNPLACED

    def _hurt(self, segment: str, path: bytes, why: str) -> None:
        self.damage.db.execute("INSERT OR IGNORE INTO hurt VALUES (?, ?, ?)", (segment, path, why))


@dataclass
class Tracer:
    """Which files and manifest objects of which snapshots are affected by what was found. Call `Damage.settle` before.
    elsewhere: as for Trees."""

    reader: ManifestReader
    damage: Damage
    elsewhere: Callable[[bytes], bool] = lambda content: False

    def trace(self, number: int, root: Ref) -> None:
        """Look through a snapshot; what is known to be whole, or known to be hurt, is not read again."""
        self._trace(root, number, leaf=False)

    def _trace(self, ref: Ref, number: int, *, leaf: bool) -> bool:
        db, name = self.damage.db, ref.name.key()
        if db.execute("SELECT 1 FROM whole WHERE name = ?", (name,)).fetchone():
            return True
        known = leaf and db.execute("SELECT 1 FROM victim WHERE segment = ? LIMIT 1", (name,)).fetchone()
        if not known:
            broken = db.execute("SELECT 1 FROM broken WHERE name = ?", (name,)).fetchone()
            try:
                kind, payload = (SEGMENT, b"") if broken else self.reader.object(ref.name, (NODE, SEGMENT))
                if kind == NODE:
                    level, refs = decode_node(payload, name)
                    parts = [self._trace(below, number, leaf=level == 1) for below in refs]
                    return self._whole(name, all(parts))
                if not broken:
                    self._examine(name, decode_segment(payload, name))
            except (DamageError, NotFound) as error:
                self.damage.break_(ref, _why(error))
                broken = (1,)
            if broken:
                db.execute("INSERT OR IGNORE INTO breaks VALUES (?, ?)", (name, number))
                return False
        added = db.execute(
            "INSERT OR IGNORE INTO holder SELECT path, why, ? FROM victim WHERE segment = ?", (number, name)
        ).rowcount
        return self._whole(name, not known and added == 0)

    def _whole(self, name: str, whole: bool) -> bool:
        if whole:
            self.damage.db.execute("INSERT OR IGNORE INTO whole VALUES (?)", (name,))
        return whole

    def _examine(self, segment: str, entries: list[Entry]) -> None:
        """Find the damaged files of a segment."""
        db = self.damage.db
        db.execute("INSERT OR IGNORE INTO victim SELECT segment, path, why FROM hurt WHERE segment = ?", (segment,))
        contents = [entry for entry in entries if isinstance(entry, File | Page)]
        ids = {id_ for entry in contents if entry.more is None for id_ in split_ids(entry.chunks)}
        gone = self._gone(list(ids))
        for entry in contents:
            if entry.more is not None:
                pack = self._in_list(entry)
            else:
                pack = next((gone[id_] for id_ in split_ids(entry.chunks) if id_ in gone), None) if gone else None
            if pack is not None and not self.elsewhere(self.reader.content_key(entry)):
                why = f"a chunk of it is in the damaged pack {pack}" if pack != NOWHERE else "no place is known for a chunk of it"
                db.execute("INSERT OR IGNORE INTO victim VALUES (?, ?, ?)", (segment, entry.path, why))

    def _gone(self, ids: list[ChunkId]) -> dict[bytes, str]:
        return dict(rows_of(self.damage.db, "SELECT id, pack FROM gone WHERE id IN", ids))

    def _in_list(self, entry: File | Page) -> str | None:
        """The pack of a gone chunk of a long list; a list that cannot be read is known already."""
        ids = self.reader.chunk_ids(entry)
        try:
            while some := list(islice(ids, _HELD_IDS)):
                if gone := self._gone(some):
                    return next(gone[id_] for id_ in some if id_ in gone)
        except (DamageError, NotFound):
            pass
        return None


def _snapshots(numbers: Iterable[int]) -> str:
    found = list(numbers)
    return f"snapshot{'s' if len(found) > 1 else ''} {ranges_text(found)}"


def _why(error: Exception) -> str:
    return error.why if isinstance(error, DamageError) else "it is not there"


def _key(error: Exception, otherwise: str) -> str:
    """The object that an error is about."""
    where = error.where if isinstance(error, DamageError) else str(error)
    key = where[where.rfind(f"{MANIFEST}/") :]
    return key if ObjectName.parse(key) else otherwise


def _sizes(found: int, size: int) -> str:
    return f"its chunks have {found:,} bytes together, the entry says {size:,}"
