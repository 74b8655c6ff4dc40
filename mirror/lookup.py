"""Where chunks are: the target's index fragments merged into the local state, asked in bulk, and what prune records doomed.

A row is valid only while its fragment is listed by the target and neither the fragment nor its pack is doomed (DESIGN section 4,
Epochs); `refresh` makes that so from a fresh listing before anything is asked. Readers ask `places`, writers `claim` as well: a
claim keeps one run from storing a chunk twice.

Everything that a writer reuses through a fragment is noted (`used`), so that after a lost race it can be checked against
the dooms of the records in between.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mirror.chunking import ChunkId
from mirror.envelope import FRAGMENT, OBJECT_MAX, unseal
from mirror.errors import DamageError, NotFound
from mirror.index import Fragment, decode_fragment
from mirror.keys import INDEX, ObjectName
from mirror.pack import Slot
from mirror.state import State
from mirror.store import ReadableStore

_CLAIMS_HELD = 200_000  # about 25 MB
GONE = "it is not there, and the log names it"
_ASK = 500  # ids a query; sqlite's default limit is 999 parameters


class Location(NamedTuple):
    """Where a chunk is: pack (its key), block's place in the pack, offset and length in the block's plain bytes."""

    pack: str
    slot: Slot
    offset: int
    length: int


class ChunkIndex:
    """The merged index of one target within one run. Not shared between threads or processes."""

    def __init__(self, state: State, store: ReadableStore, claims_held: int = _CLAIMS_HELD) -> None:
        """claims_held: so many claims are kept in memory; more go to disk."""
        self._db = state.db
        self._state = state
        self._store = store
        self._db.execute("CREATE TEMP TABLE claim (id BLOB PRIMARY KEY, batch INTEGER) WITHOUT ROWID")
        self.used: set[str] = set()  # keys of fragments and packs that this run reused
        self._known = 0
        self._claims_held = claims_held
        self._claims: dict[bytes, int] = {}
        self._spilled = False
        self.damaged: set[str] = set()  # keys of fragments that are there and cannot be read
        self.listed: set[str] = set()  # keys of fragments as of the last refresh
        self.written: set[str] = set()  # keys of fragments that this run wrote
        self.passing: frozenset[str] = frozenset()  # keys of packs that are about to go: they are read, and nothing relies on them
        self._standing = False
        self.forgot = 0  # how often something that was in the index went out of it

    def refresh(
        self,
        doomed: Callable[[str], bool],
        on_damage: Callable[[str, Exception], None] | None = None,
        keys: Iterable[str] | None = None,
        *,
        gone_is_damage: bool = False,
    ) -> bool:
        """Bring the index to what the target lists now. on_damage: called for each fragment that cannot be read (default: raise).
        keys: of the fragments that there are, where that is known without a listing. gone_is_damage: the head has not moved, so one
        that is not there was not pruned.

        A fragment listed but gone when asked for was pruned meanwhile: the caller's head is old, NotFound passes. Gives whether the
        fragments are others than before."""
        if keys is None:
            keys = (stat.key for stat in self._store.list(f"{INDEX}/"))
        listed = {key for key in keys if _is_fragment(key) and not doomed(key)}
        self.listed = listed
        have = {name: no for no, name in self._db.execute("SELECT no, name FROM fragment")}
        self._drop([have[name] for name in have.keys() - listed], "fragment")
        for name in sorted(listed - have.keys()):
            try:
                self.add(name, fetch_fragment(self._store, name, decode_fragment))
            except NotFound:
                if not gone_is_damage or on_damage is None:
                    raise
                on_damage(name, DamageError("cannot read", where=f"{self._store.url}/{name}", why=GONE))
            except Exception as error:
                if on_damage is None:
                    raise
                self.damaged.add(name)
                on_damage(name, error)
        self._drop([no for no, name in self._db.execute("SELECT no, name FROM pack") if doomed(name)], "pack")
        self._known = self._db.execute("SELECT EXISTS (SELECT 1 FROM chunk)").fetchone()[0]
        return have.keys() != listed

    def _drop(self, numbers: list[int], what: str) -> None:
        """Forget fragments, or packs (`what`), with all that hangs on them: a number may be given again. Each table is gone through
        once, however many they are."""
        if not numbers:
            return
        self.forgot += 1
        with self._state.together():
            self._db.execute("CREATE TEMP TABLE dropped (no INTEGER PRIMARY KEY)")
            self._db.executemany("INSERT INTO dropped VALUES (?)", ((no,) for no in numbers))
            self._db.execute(f"DELETE FROM chunk WHERE {what} IN (SELECT no FROM dropped)")
            self._db.execute(f"DELETE FROM listed WHERE {what} IN (SELECT no FROM dropped)")
            self._db.execute(f"DELETE FROM {what} WHERE no IN (SELECT no FROM dropped)")
            self._db.execute("DELETE FROM block WHERE pack NOT IN (SELECT pack FROM listed)")
            self._db.execute("DELETE FROM pack WHERE no NOT IN (SELECT pack FROM listed)")
            self._db.execute("DROP TABLE dropped")

    def add(self, name: str, fragment: Fragment) -> None:
        """Take in a fragment that the target has; nothing happens when it is known."""
        if self._db.execute("SELECT 1 FROM fragment WHERE name = ?", (name,)).fetchone():
            self._known = 1
            return
        with self._state.together():
            fragment_no = self._db.execute("INSERT INTO fragment (name) VALUES (?)", (name,)).lastrowid
            numbers = []
            for pack in fragment.packs:
                key = pack.name.key()
                self._db.execute("INSERT OR IGNORE INTO pack (name, size) VALUES (?, ?)", (key, pack.size))
                no = self._db.execute("SELECT no FROM pack WHERE name = ?", (key,)).fetchone()[0]
                numbers.append(no)
                self._db.execute("INSERT OR IGNORE INTO listed VALUES (?, ?)", (no, fragment_no))
                self._db.executemany(
                    "INSERT OR IGNORE INTO block VALUES (?, ?, ?, ?, ?)", ((no, at, *slot) for at, slot in enumerate(pack.blocks))
                )
            self._db.executemany(
                "INSERT OR IGNORE INTO chunk VALUES (?, ?, ?, ?, ?, ?)",
                ((id_, numbers[p.pack], p.block, p.offset, p.length, fragment_no) for id_, p in fragment),
            )
        self._known = 1

    @property
    def path(self) -> str:
        """The file that `open_places` opens in another process."""
        return str(self._state.folder / "state.sqlite")

    @property
    def packed(self) -> int:
        """Bytes of all packs that are listed."""
        return int(self._db.execute("SELECT coalesce(sum(size), 0) FROM pack").fetchone()[0])

    # -- questions -----------------------------------------------------------------------------------------------

    def _rows(self, ids: Sequence[bytes], columns: str) -> Iterator[Any]:
        return _rows(self._db, ids, columns)

    def missing(self, ids: Iterable[bytes]) -> set[bytes]:
        """Those of the ids that no valid place is known for."""
        wanted = set(ids)
        if not self._known:
            return wanted
        return wanted - {row[0] for row in self._rows(list(wanted), "id FROM chunk")}

    def unkept(self, ids: Iterable[bytes]) -> set[bytes]:
        """Those of the ids that no pack has which stays."""
        if not self.passing:
            return self.missing(ids)
        wanted = set(ids)
        columns = "chunk.id, pack.name FROM chunk JOIN pack ON pack.no = chunk.pack"
        return wanted - {id_ for id_, pack in self._rows(list(wanted), columns) if pack not in self.passing}

    def places(self, ids: Iterable[bytes]) -> dict[ChunkId, Location]:
        """A valid place of each id that has one."""
        return places(self._db, ids)

    def stands(self, ids: Iterable[bytes]) -> None:
        """Take these as chunks that the target has, in no pack but in its live files: they need not be brought."""
        if not self._standing:
            self._db.execute("CREATE TEMP TABLE live_chunk (id BLOB PRIMARY KEY) WITHOUT ROWID")
            self._standing = True
        self._db.executemany("INSERT OR IGNORE INTO live_chunk VALUES (?)", ((id_,) for id_ in ids))

    def forget_standing(self) -> None:
        """What stands there is another now."""
        self._db.execute("DROP TABLE IF EXISTS temp.live_chunk")
        self._standing = False

    def reuse(self, ids: Sequence[bytes]) -> set[bytes]:
        """Those of the ids that the target has; noted as used."""
        known: set[bytes] = set()
        if self._known:
            columns = (
                "chunk.id, pack.name, fragment.name FROM chunk "
                "JOIN pack ON pack.no = chunk.pack JOIN fragment ON fragment.no = chunk.fragment"
            )
            for id_, pack, fragment in self._rows(ids, columns):
                if pack not in self.passing:
                    known.add(id_)
                    self.used.update((pack, fragment))
        if self._standing:
            left = [id_ for id_ in ids if id_ not in known]
            for at in range(0, len(left), _ASK):
                some = left[at : at + _ASK]
                marks = ",".join("?" * len(some))
                known.update(row[0] for row in self._db.execute(f"SELECT id FROM live_chunk WHERE id IN ({marks})", some))
        return known

    def claim(self, ids: Sequence[bytes], batch: int) -> bytes:
        """One byte an id: 1 when batch `batch` is to store it, 0 when it is in the target or another batch stores it.

        A batch that is run again gets its own claims again."""
        wanted = list(dict.fromkeys(ids))
        known = self.reuse(wanted)
        fresh = [id_ for id_ in wanted if id_ not in known]
        known.update(self._claimed(fresh, batch))
        answer = bytearray(len(ids))
        for at, id_ in enumerate(ids):
            if id_ not in known:
                answer[at] = 1
                known.add(id_)
        return bytes(answer)

    def _claimed(self, fresh: list[bytes], batch: int) -> set[bytes]:
        """Those that other batches have claimed; the rest are claimed now. In memory while they are few: 0.2 µs each, 5 in
        sqlite."""
        taken = {id_ for id_ in fresh if self._claims.get(id_, batch) != batch}
        if self._spilled:
            for at in range(0, len(fresh), _ASK):
                some = fresh[at : at + _ASK]
                marks = ",".join("?" * len(some))
                query = f"SELECT id FROM claim WHERE id IN ({marks}) AND batch <> ?"
                taken.update(row[0] for row in self._db.execute(query, (*some, batch)))
        self._claims.update((id_, batch) for id_ in fresh if id_ not in taken)
        if len(self._claims) > self._claims_held:
            self._db.executemany("INSERT OR IGNORE INTO claim VALUES (?, ?)", sorted(self._claims.items()))
            self._claims, self._spilled = {}, True
        return taken

    def drop_claims(self) -> None:
        """Forget all claims: a new attempt begins."""
        self._db.execute("DELETE FROM claim")
        self._claims, self._spilled = {}, False
        self.used.clear()


def _is_fragment(key: str) -> bool:
    name = ObjectName.parse(key)
    return name is not None and name.place == INDEX


def fetch_fragment(store: ReadableStore, key: str, decode: Callable[[bytes, str], Fragment]) -> Fragment:
    """The fragment of this key, its bytes held against its name. decode: `decode_fragment`, or what checks less at once. NotFound,
    DamageError."""
    name = ObjectName.parse(key)
    assert name
    where = f"{store.url}/{key}"
    _, payload = unseal(store.get(key, OBJECT_MAX), (FRAGMENT,), name.digest, where)
    return decode(payload, where)


def open_places(path: str) -> sqlite3.Connection:
    """The index that a coordinator holds at `path`, for a worker to ask `places` of. It is only read."""
    return sqlite3.connect(f"{Path(path).as_uri()}?mode=ro", uri=True, isolation_level=None)


def places(db: sqlite3.Connection, ids: Iterable[bytes]) -> dict[ChunkId, Location]:
    """A valid place of each id that has one."""
    columns = (
        "chunk.id, pack.name, block.offset, block.stored, block.plain, chunk.offset, chunk.length FROM chunk "
        "JOIN pack ON pack.no = chunk.pack JOIN block ON block.pack = chunk.pack AND block.no = chunk.block"
    )
    found: dict[ChunkId, Location] = {}
    for id_, name, at, stored, plain, offset, length in _rows(db, list(set(ids)), columns):
        found[ChunkId(id_)] = Location(name, Slot(at, stored, plain), offset, length)
    return found


def _rows(db: sqlite3.Connection, ids: Sequence[bytes], columns: str) -> Iterator[Any]:
    for at in range(0, len(ids), _ASK):
        some = ids[at : at + _ASK]
        marks = ",".join("?" * len(some))
        yield from db.execute(f"SELECT {columns} WHERE chunk.id IN ({marks})", some)
