"""Which new files are old ones under another path: the same content gone in one place and come in another.

Content is the same when the chunk lists are equal. Works on temporary tables of the local state, so a renamed folder of a million
files takes disk, not memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import msgspec

from mirror.errors import DamageError
from mirror.manifest import ChangeLine, Entry, File, Page
from mirror.plan import DELETED, MOVED, NEW
from mirror.spool import Spool
from mirror.state import State


class Row(NamedTuple):
    """A path of the outcome: symbol, path, size, and what its content is (empty: no file, or an empty one)."""

    symbol: str
    path: bytes
    size: int
    content: bytes


_decoder = msgspec.msgpack.Decoder(Row)


def row_spool() -> Spool[Row]:
    """A spool for rows."""
    return Spool(msgspec.msgpack.Encoder().encode, _decoder.decode)


def row(symbol: str, entry: Entry, content_key: Callable[[File | Page], bytes]) -> Row:
    """The row of an entry; what its content is (`ManifestReader.content_key`) only where it can have moved."""
    if not isinstance(entry, File | Page):
        return Row(symbol, entry.path, 0, b"")
    if not entry.size or symbol not in (NEW, DELETED):
        return Row(symbol, entry.path, entry.size, b"")
    try:
        return Row(symbol, entry.path, entry.size, content_key(entry))
    except DamageError:  # its chunk list: verify's business; here it is a file that did not move
        return Row(symbol, entry.path, entry.size, b"")


class Moves:
    """Pairs new rows with gone ones. Read `lines` (or `count`) after `pair`. Drops its tables in `close`."""

    def __init__(self, state: State) -> None:
        self._db = state.db
        self.close()
        self._db.execute("CREATE TEMP TABLE gone (path BLOB PRIMARY KEY, content BLOB) WITHOUT ROWID")
        self._db.execute("CREATE TEMP TABLE came (path BLOB PRIMARY KEY, old BLOB) WITHOUT ROWID")

    def pair(self, rows: Iterable[Row]) -> int:
        """Find the moves among the rows (iterated twice); how many."""
        self._db.executemany(
            "INSERT INTO gone VALUES (?, ?)", ((row.path, row.content) for row in rows if row.symbol == DELETED and row.content)
        )
        self._db.execute("CREATE INDEX temp.gone_content ON gone (content)")
        moved = 0
        if self._db.execute("SELECT EXISTS (SELECT 1 FROM gone)").fetchone()[0]:
            for row in rows:
                if row.symbol == NEW and row.content:
                    old = self._db.execute("SELECT path FROM gone WHERE content = ? LIMIT 1", (row.content,)).fetchone()
                    if old:
                        self._db.execute("DELETE FROM gone WHERE path = ?", old)
                        self._db.execute("INSERT INTO came VALUES (?, ?)", (row.path, old[0]))
                        moved += 1
        return moved

    def lines(self, rows: Iterable[Row]) -> Iterator[tuple[ChangeLine, int]]:
        """(line, size) of each row, in order; a moved file is one line at its new path."""
        any_moved = self._db.execute("SELECT EXISTS (SELECT 1 FROM came)").fetchone()[0]
        for row in rows:
            if any_moved and row.content and row.symbol == NEW:
                old = self._db.execute("SELECT old FROM came WHERE path = ?", (row.path,)).fetchone()
                if old:
                    yield ChangeLine(MOVED, row.path, old[0]), row.size
                    continue
            if any_moved and row.content and row.symbol == DELETED and not self._is_left(row.path):
                continue
            yield ChangeLine(row.symbol, row.path), row.size

    def _is_left(self, path: bytes) -> bool:
        return self._db.execute("SELECT 1 FROM gone WHERE path = ?", (path,)).fetchone() is not None

    def close(self) -> None:
        """Drop the tables."""
        self._db.execute("DROP TABLE IF EXISTS temp.gone")
        self._db.execute("DROP TABLE IF EXISTS temp.came")
