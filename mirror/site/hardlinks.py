"""Hard-link groups of a scan: which path of each is the first in key order. Bounded memory, whatever the site.

>>> links = HardLinks()
>>> links.first(1, 7, 2, b"a"), links.first(1, 7, 2, b"b")
(b'', b'a')
"""

from __future__ import annotations

import sqlite3
from typing import Final

HARD_LINKS_MAX: Final = 200_000  # unfinished groups held in memory


class HardLinks:
    """The first path, in key order, of each hard-link group. A group is forgotten when all its members were seen; past
    `limit` unfinished groups they move to a temporary database on disk."""

    __slots__ = ("_database", "_groups", "_limit")

    def __init__(self, limit: int = HARD_LINKS_MAX) -> None:
        self._groups: dict[tuple[int, int], tuple[bytes, int]] = {}  # (device, inode) → first path, members not seen yet
        self._limit = limit
        self._database: sqlite3.Connection | None = None

    def first(self, device: int, inode: int, members: int, path: bytes) -> bytes:
        """The group's first path; empty for the first itself. To be called in key order."""
        group = (device, inode)
        known = self._groups.get(group) or (self._recall(group) if self._database else None)
        first, left = known or (path, members)
        if left > 1:
            self._groups[group] = (first, left - 1)
            if len(self._groups) > self._limit:
                self._spill()
        else:
            self._groups.pop(group, None)
        return first if known else b""

    def close(self) -> None:
        if self._database:
            self._database.close()
        self._database, self._groups = None, {}

    def _recall(self, group: tuple[int, int]) -> tuple[bytes, int] | None:
        assert self._database
        row: tuple[bytes, int] | None = self._database.execute(
            "DELETE FROM groups WHERE id = ? RETURNING first, missing", (b"%d.%d" % group,)
        ).fetchone()
        return row

    def _spill(self) -> None:
        if not self._database:
            # An empty name: sqlite makes a private file in the temporary folder and removes it. Nothing needs to be durable.
            self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode = OFF")
            self._database.execute("CREATE TABLE groups (id BLOB PRIMARY KEY, first BLOB, missing INTEGER) WITHOUT ROWID")
        rows = ((b"%d.%d" % group, first, left) for group, (first, left) in self._groups.items())
        self._database.execute("BEGIN")
        self._database.executemany("INSERT INTO groups VALUES (?, ?, ?)", rows)
        self._database.execute("COMMIT")
        self._groups = {}
