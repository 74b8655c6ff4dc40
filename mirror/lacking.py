"""Chunks that files want and no pack has: which live files have them, as the manifest of what stands there says.

What a client brings for a tree is only what the tree has not, so a new file may be put together from a pack and from parts of
several live files. First all chunks that are lacking are noted, then they are looked for: in what the paths that change are now,
and only if that is not enough in the whole manifest. O(changes) but for the latter; all of it is on disk.

    lacking = Lacking(reader, index, db)
    lacking.note(wanted)
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
        self.noted = 0
        self.unfound = 0  # of the chunks that are noted: those that no live file is known to have
        db.execute("DROP TABLE IF EXISTS temp.lacking")
        db.execute("CREATE TEMP TABLE lacking (id BLOB PRIMARY KEY, wanted BLOB, path BLOB, class INTEGER) WITHOUT ROWID")

    def note(self, entries: Iterable[Entry | None]) -> None:
        """Take in the chunks of these entries that no pack has."""
        for held in self._held(entries):
            rows = ((id_, held[ChunkId(id_)].path) for id_ in self._index.missing(held))
            self.noted += self._db.executemany("INSERT OR IGNORE INTO lacking (id, wanted) VALUES (?, ?)", rows).rowcount
        self.unfound = self.noted

    def look(self, entries: Iterable[Entry | None]) -> None:
        """Note which of these entries have what is lacking; stops when nothing is."""
        for held in self._held(entries) if self.unfound > 0 else ():
            self._place(held)
            if self.unfound <= 0:
                return

    def _place(self, held: dict[ChunkId, WithContent]) -> None:
        """Note the entries that have these chunks, where they are lacking."""
        marks = ",".join("?" * len(held))
        query = f"SELECT id FROM lacking WHERE path IS NULL AND id IN ({marks})"
        found = [row[0] for row in self._db.execute(query, list(held))]
        places = ((held[id_].path, held[id_].class_, id_) for id_ in found)
        self._db.executemany("UPDATE lacking SET path = ?, class = ? WHERE id = ?", places)
        self.unfound -= len(found)

    def donors(self, entry: WithContent) -> tuple[Donor, ...]:
        """The live files that have what packs have not of an entry, the one with its path first."""
        found: set[tuple[bytes, int]] = set()
        for ids in self._groups(entry) if self.noted else ():
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

    def _held(self, entries: Iterable[Entry | None]) -> Iterator[dict[ChunkId, WithContent]]:
        """The chunks of entries, as many at a time as are asked for together, each with one that has it."""
        held: dict[ChunkId, WithContent] = {}
        for entry in entries:
            if not isinstance(entry, File | Page) or not entry.size:
                continue
            for id_ in self._reader.chunk_ids(entry):
                held[id_] = entry
                if len(held) >= _ASK:
                    yield held
                    held = {}
        if held:
            yield held

    def _groups(self, entry: WithContent) -> Iterator[list[ChunkId]]:
        ids = self._reader.chunk_ids(entry)
        while some := list(islice(ids, _ASK)):
            yield some
