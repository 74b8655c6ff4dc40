"""Where in a live tree the content of a snapshot's file may be: under its own path, among the files that a bucket keeps whole,
under paths that changed since that snapshot, and, before it is called lost, anywhere that the newest snapshot says so.

A manifest says what *should* be where. Whatever is read from a live file is proved by the chunk ids of the entry that it is read
for; a live file may change at any moment.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import NamedTuple

from mirror.chunking import ChunkId, chunk_id, identify
from mirror.compare import same_list
from mirror.errors import NotFound
from mirror.manifest import Entry, File, Page, Ref, WithContent
from mirror.sides import differences
from mirror.site import Site
from mirror.site.live import is_ours
from mirror.snapshot import ManifestReader
from mirror.wholes import LEAST, path_of

OWN, CHANGED_SINCE, ANYWHERE = range(3)
_MOST = 8  # places of one content that are tried


class Copies:
    """Paths of a live tree by content, as far as it was asked for (`look`). db: temporary tables go there. wholes: gives the keys
    of the files that are kept whole, by content key, asked once."""

    def __init__(
        self, site: Site, reader: ManifestReader, db: sqlite3.Connection, wholes: Callable[[], dict[bytes, str]] = dict
    ) -> None:
        self._site, self._reader, self._db, self._list_wholes = site, reader, db, wholes
        self._db.execute(
            "CREATE TEMP TABLE IF NOT EXISTS copy (content BLOB, path BLOB, PRIMARY KEY (content, path)) WITHOUT ROWID"
        )

    def look(self, of: Ref, newest: Ref, depth: int) -> None:
        """Take in where content may be that the manifest `of` has: depth CHANGED_SINCE or ANYWHERE of the newest manifest."""
        self._db.execute("DELETE FROM copy")
        self.__dict__.pop("_wholes", None)
        if depth == OWN:
            return
        entries = self._reader.entries(newest) if depth == ANYWHERE else self._changed(of, newest)
        files = (entry for entry in entries if isinstance(entry, File | Page) and entry.size)
        rows = ((self._reader.content_key(entry), entry.path) for entry in files)
        self._db.executemany("INSERT OR IGNORE INTO copy VALUES (?, ?)", rows)

    def _changed(self, of: Ref, newest: Ref) -> Iterator[Entry]:
        return (after for _, after in differences(self._reader, of, newest) if after is not None)

    @cached_property
    def _wholes(self) -> dict[bytes, str]:
        return self._list_wholes()

    def paths(self, entry: WithContent) -> tuple[bytes, ...]:
        """The paths of the live place to try for an entry, its own first."""
        query, content = f"SELECT path FROM copy WHERE content = ? LIMIT {_MOST}", self._reader.content_key(entry)
        found = [path for (path,) in self._db.execute(query, (content,))]
        live = [path for path in dict.fromkeys([entry.path, *found]) if not is_ours(path)]
        kept = self._wholes.get(content) if entry.size >= LEAST else None
        return (*live, path_of(kept)) if kept is not None else tuple(live)

    def open(self, entry: WithContent) -> Copy | None:
        """A live file that has the content of an entry now; None when none of those known has. Close it."""
        for path in self.paths(entry):
            try:
                content = self._site.open(path)
            except (NotFound, OSError):
                continue
            lengths = _Lengths()
            try:
                if content.size == entry.size:
                    _, _, joined = identify(content.stream.read, content.size, entry.class_, lengths.take)
                    if same_list(entry, joined):
                        return Copy(self._site, path, lengths.kept)
            except OSError:
                pass
            finally:
                content.stream.close()
        return None


class _Lengths:
    def __init__(self) -> None:
        self.kept = array("I")

    def take(self, id_: ChunkId, data: bytes | memoryview) -> None:
        self.kept.append(len(data))


class Copy(NamedTuple):
    """A live file that had the right content a moment ago, and how long its chunks are."""

    site: Site
    path: bytes
    lengths: array[int]

    def chunks(self, ids: Iterator[ChunkId], skip: int) -> Iterator[bytes]:
        """Its chunks but for the first `skip`, each proved; ends early where one is not what its id says any more."""
        try:
            content = self.site.open(self.path)
        except (NotFound, OSError):
            return
        with content.stream as stream:
            try:
                for number, (id_, length) in enumerate(zip(ids, self.lengths, strict=True)):
                    data = stream.read(length)
                    if number >= skip:
                        if chunk_id(data) != id_:
                            return
                        yield data
            except OSError:
                return
