"""Chunks that files want and no pack has: which live files have them, as the manifest of what stands there says.

What a client brings for a tree is only what the tree has not, so a new file may be put together from a pack and from parts of
several live files. First all chunks that are lacking are noted, then they are looked for: in what the paths that change are now,
and only if that is not enough in the whole manifest. O(changes) but for the latter; all of it is on disk.

    lacking = Lacking(reader, index, db)
    for entry in wanted: lacking.note(entry)
    lacking.look(entries of a manifest)
    lacking.donors(entry)
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from mirror.chunking import ChunkId
from mirror.keys import show
from mirror.lookup import ChunkIndex
from mirror.manifest import Entry, File, Page, WithContent
from mirror.snapshot import ManifestReader
from mirror.transfer.donors import Donor

_ASK: Final = 500  # ids a query; sqlite's default limit is 999 parameters


class Lacking:
    """The chunks that are lacking, by id. db: a temporary table goes there, one such at a time."""

    def __init__(self, reader: ManifestReader, index: ChunkIndex, db: sqlite3.Connection) -> None:
        self._reader, self._index, self._db = reader, index, db
        self.unfound = 0  # chunks that are noted, and that no live file is known to have
        db.execute("DROP TABLE IF EXISTS temp.lacking")
        db.execute("CREATE TEMP TABLE lacking (id BLOB PRIMARY KEY, wanted BLOB, path BLOB, class INTEGER) WITHOUT ROWID")

    def note(self, entry: WithContent) -> None:
        """Take in the chunks of an entry that no pack has."""
        for ids in self._groups(entry):
            rows = ((id_, entry.path) for id_ in self._index.missing(ids))
            self.unfound += self._db.executemany("INSERT OR IGNORE INTO lacking (id, wanted) VALUES (?, ?)", rows).rowcount

    def look(self, entries: Iterable[Entry | None]) -> None:
        """Note which of these entries have what is lacking; stops when nothing is."""
        held: dict[ChunkId, WithContent] = {}
        for entry in entries if self.unfound > 0 else ():
            if not isinstance(entry, File | Page) or not entry.size:
                continue
            for ids in self._groups(entry):
                held.update(dict.fromkeys(ids, entry))
                if len(held) >= _ASK:
                    self._place(held)
                    held = {}
            if self.unfound <= 0:
                return
        self._place(held)

    def _place(self, held: dict[ChunkId, WithContent]) -> None:
        """Note the entries that have these chunks, where they are lacking."""
        asked = list(held)
        for at in range(0, len(asked), _ASK):
            some = asked[at : at + _ASK]
            marks = ",".join("?" * len(some))
            query = f"SELECT id FROM lacking WHERE path IS NULL AND id IN ({marks})"
            found = [row[0] for row in self._db.execute(query, some)]
            places = ((held[id_].path, held[id_].class_, id_) for id_ in found)
            self._db.executemany("UPDATE lacking SET path = ?, class = ? WHERE id = ?", places)
            self.unfound -= len(found)

    def donors(self, entry: WithContent) -> tuple[Donor, ...]:
        """The live files that have what packs have not of an entry, the one with its path first."""
        found: set[tuple[bytes, int]] = set()
        for ids in self._groups(entry):
            marks = ",".join("?" * len(ids))
            query = f"SELECT DISTINCT path, class FROM lacking WHERE path IS NOT NULL AND id IN ({marks})"
            found.update(self._db.execute(query, ids))
        return tuple(Donor(path, class_) for path, class_ in sorted(found, key=lambda each: (each[0] != entry.path, each)))

    def first_unfound(self) -> str:
        """The path of a file that wants a chunk which is nowhere, as people see it; empty when there is none."""
        row = self._db.execute("SELECT min(wanted) FROM lacking WHERE path IS NULL").fetchone()
        return show(row[0]) if row and row[0] is not None else ""

    def close(self) -> None:
        """Give the table back."""
        self._db.execute("DROP TABLE IF EXISTS temp.lacking")

    def _groups(self, entry: WithContent) -> Iterator[list[ChunkId]]:
        ids = self._reader.chunk_ids(entry)
        while some := list(islice(ids, _ASK)):
            yield some
