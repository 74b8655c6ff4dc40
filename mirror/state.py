"""What this host remembers of a target: one sqlite file, disposable. It may say what an object contains, never that it exists.

Tables
    object      manifest objects by digest (re-hashed when used), so that an unchanged night fetches none
    scanned     for a segment of the last manifest of a source: what the last scan saw of each entry, inode and ctime included
    found       content records of files that a run read before it was interrupted, many in one row
    fragment, pack, block, chunk    the merged index (lookup.py)
    doom        object keys that prune records named (lookup.py)
    proven      packs that an unfinished verify has read (verify.py)
    fact        small values: the last head that was seen, the newest prune record taken in

The file is keyed by the target's uuid (the folder's name). A damaged or foreign file is thrown away: all that is lost is time.
Where there is no cache folder (HOME unset) the state lives in a temporary file for one run.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from mirror.envelope import Kind, digest_of

if TYPE_CHECKING:
    from tempfile import TemporaryDirectory

_VERSION = 3
_SCHEMA = """
CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE object (digest BLOB PRIMARY KEY, kind INTEGER, payload BLOB, run INTEGER) WITHOUT ROWID;
CREATE TABLE scanned (source TEXT, segment BLOB, memory BLOB, PRIMARY KEY (source, segment)) WITHOUT ROWID;
CREATE TABLE found (source TEXT, rows BLOB);
CREATE TABLE fragment (no INTEGER PRIMARY KEY, name TEXT UNIQUE);
CREATE TABLE pack (no INTEGER PRIMARY KEY, name TEXT UNIQUE, size INTEGER);
CREATE TABLE listed (pack INTEGER, fragment INTEGER, PRIMARY KEY (pack, fragment)) WITHOUT ROWID;
CREATE TABLE block (pack INTEGER, no INTEGER, offset INTEGER, stored INTEGER, plain INTEGER, PRIMARY KEY (pack, no)) WITHOUT ROWID;
CREATE TABLE chunk (id BLOB, pack INTEGER, block INTEGER, offset INTEGER, length INTEGER, fragment INTEGER,
                    PRIMARY KEY (id, pack, fragment)) WITHOUT ROWID;
CREATE TABLE doom (name TEXT PRIMARY KEY, prune INTEGER) WITHOUT ROWID;
CREATE TABLE proven (pack TEXT PRIMARY KEY, verdict TEXT) WITHOUT ROWID;
"""


# The records of `found` laid out to be asked, by the one run in many that has an interrupted one before it. As a table of its own,
# written by every run, they took 0.4 s of CPU time for 33,000 files.
_LAID_OUT = """
CREATE TEMP TABLE laid_out (source TEXT, path BLOB, size INTEGER, mtime INTEGER, v1 INTEGER, v2 INTEGER, record BLOB,
                            PRIMARY KEY (source, path)) WITHOUT ROWID
"""
_FOUND_ROWS = 4096
_FoundRow = tuple[bytes, int, int, int, int, bytes]
_encoder, _found_decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(list[_FoundRow])

# What sqlite says of a file that is spoilt, or none of ours (sqlite.org/rescode.html): ERROR, CORRUPT, NOTADB. All else (busy,
# read-only, full) is no reason to throw it away.
_SPOILT = (1, 11, 26)
_TABLES = _SCHEMA.count("CREATE TABLE")


class State:
    """An open state file. One thread, one process; a second process is kept away by the target's lock."""

    def __init__(self, folder: Path | None) -> None:
        """folder: this target's cache folder, made when missing; None for a state that lasts one run."""
        self.lasting = folder is not None
        self.why_not = ""  # `open_state` says why it does not last
        self._held: TemporaryDirectory[str] | None = None
        if folder is None:
            from tempfile import TemporaryDirectory

            self._held = TemporaryDirectory(prefix="mirror-state-")
            folder = Path(self._held.name)
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.db = self._open(self.folder / "state.sqlite")
        self._laid_out = False  # whether temp.laid_out says what `found` does

    @staticmethod
    def _open(path: Path) -> sqlite3.Connection:
        for attempt in (1, 2):
            db = sqlite3.connect(path, isolation_level=None)
            try:
                db.execute("PRAGMA journal_mode=WAL")
                db.execute("PRAGMA synchronous=OFF")  # losing the newest writes to a power cut costs time, nothing else
                db.execute("PRAGMA cache_size=-16384")
                tables = db.execute("SELECT count(*) FROM sqlite_master WHERE type = 'table'").fetchone()[0]
                if tables == _TABLES and db.execute("PRAGMA user_version").fetchone()[0] == _VERSION:
                    return db
                if not tables:
                    db.executescript(f"BEGIN; {_SCHEMA} PRAGMA user_version={_VERSION}; COMMIT;")
                    return db
            except sqlite3.DatabaseError as error:
                if attempt == 2 or error.sqlite_errorcode & 0xFF not in _SPOILT:
                    db.close()
                    raise
            db.close()
            _remove(path)
        raise sqlite3.DatabaseError(f"{path} cannot be made")

    def is_whole(self) -> bool:
        """Whether every page is what it should be; takes a time proportional to the file (0.1 s for 100 MB)."""
        try:
            return bool(self.db.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok")
        except sqlite3.DatabaseError:
            return False

    def discard(self) -> None:
        """Throw the file away, as far as that goes: it turned out to be spoilt. To be closed all the same."""
        with contextlib.suppress(OSError):
            _remove(self.folder / "state.sqlite")

    def close(self) -> None:
        """Close the file; a temporary one is gone with it."""
        self.db.close()
        if self._held:
            self._held.cleanup()

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Writes inside happen together or, when an exception passes, not at all."""
        self.db.execute("BEGIN")
        try:
            yield
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")

    def _row(self, select: str, *values: object) -> tuple[Any, ...] | None:
        """A row, None when there is none, or when it lies in a part of the file that is spoilt."""
        try:
            row: tuple[Any, ...] | None = self.db.execute(select, values).fetchone()
        except sqlite3.DatabaseError:
            return None
        return row

    # -- facts ---------------------------------------------------------------------------------------------------

    def fact(self, name: str) -> str:
        """A remembered value, empty when there is none."""
        row = self._row("SELECT value FROM fact WHERE name = ?", name)
        return row[0] if row else ""

    def remember(self, name: str, value: str) -> None:
        """Remember a value under a name."""
        self.db.execute("INSERT OR REPLACE INTO fact VALUES (?, ?)", (name, value))

    # -- manifest objects ----------------------------------------------------------------------------------------

    def payload(self, digest: bytes) -> tuple[Kind, bytes] | None:
        """A manifest object's kind and payload if its bytes still are what the digest says."""
        row = self._row("SELECT kind, payload FROM object WHERE digest = ?", digest)
        if row and digest_of(row[0], row[1]) == digest:
            return Kind(row[0]), row[1]
        return None

    def keep_payloads(self, rows: Iterable[tuple[bytes, Kind, bytes]]) -> None:
        """Remember manifest objects (digest, kind, payload); one that was spoilt is right again."""
        self.db.executemany(
            "INSERT INTO object VALUES (?, ?, ?, 0) ON CONFLICT DO UPDATE SET kind = excluded.kind, payload = excluded.payload "
            "WHERE payload <> excluded.payload OR kind <> excluded.kind",
            rows,
        )

    def keep_only(self, digests: Iterable[bytes]) -> None:
        """Forget all manifest objects, and what scans saw of their entries, but these."""
        with self.together():
            self.db.execute("CREATE TEMP TABLE keep (digest BLOB PRIMARY KEY) WITHOUT ROWID")
            self.db.executemany("INSERT OR IGNORE INTO keep VALUES (?)", ((digest,) for digest in digests))
            self.db.execute("DELETE FROM object WHERE digest NOT IN keep")
            self.db.execute("DELETE FROM scanned WHERE segment NOT IN keep")
            self.db.execute("DROP TABLE keep")

    # -- the last scan -------------------------------------------------------------------------------------------

    def scanned(self, source: str, segment: bytes) -> bytes | None:
        """What the last scan of `source` saw of the entries of a segment (scan.py's bytes); None when that is not known."""
        row = self.db.execute("SELECT memory FROM scanned WHERE source = ? AND segment = ?", (source, segment)).fetchone()
        return row[0] if row else None

    def keep_scanned(self, source: str, segment: bytes, memory: bytes) -> None:
        """Remember what a scan saw of the entries of a segment."""
        self.db.execute("INSERT OR REPLACE INTO scanned VALUES (?, ?, ?)", (source, segment, memory))

    # -- files found by an unfinished run ------------------------------------------------------------------------

    def keep_found(self, source: str, rows: Iterable[_FoundRow]) -> None:
        """Remember content records (path, size, mtime, validator, record) whose chunks an index fragment lists by now."""
        source_rows = iter(rows)
        while group := list(islice(source_rows, _FOUND_ROWS)):
            self.db.execute("INSERT INTO found VALUES (?, ?)", (source, _encoder.encode(group)))
        self._laid_out = False

    def found(self, source: str, path: bytes, size: int, mtime: int, validator: tuple[int, int]) -> bytes | None:
        """The content record of a file that is still as it was when an unfinished run read it."""
        if not self._laid_out:
            self._lay_out()
        row = self.db.execute(
            "SELECT record FROM temp.laid_out WHERE source = ? AND path = ? AND size = ? AND mtime = ? AND v1 = ? AND v2 = ?",
            (source, path, size, mtime, *validator),
        ).fetchone()
        return row[0] if row else None

    def _lay_out(self) -> None:
        self.db.execute("DROP TABLE IF EXISTS temp.laid_out")
        self.db.execute(_LAID_OUT)
        for source, data in self.db.execute("SELECT source, rows FROM found ORDER BY rowid"):
            with contextlib.suppress(msgspec.MsgspecError):  # spoilt: these files are read again
                rows = ((source, *row) for row in _found_decoder.decode(data))
                self.db.executemany("INSERT OR REPLACE INTO temp.laid_out VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
        self._laid_out = True

    def has_found(self, source: str) -> bool:
        """Whether an unfinished run left anything for this source."""
        return self.db.execute("SELECT 1 FROM found WHERE source = ? LIMIT 1", (source,)).fetchone() is not None

    def forget_index(self) -> None:
        """Forget the merged index."""
        for table in ("chunk", "block", "listed", "pack", "fragment"):
            self.db.execute(f"DELETE FROM {table}")

    def forget_found(self, source: str) -> None:
        """A run for this source is finished: nothing needs to be resumed."""
        self.db.execute("DELETE FROM found WHERE source = ?", (source,))
        self._laid_out = False


def open_state(folder: Path | None) -> State:
    """The state in a folder, or one that lasts one run where that cannot be had; `why_not` says why."""
    why = ""
    if folder is not None:
        try:
            return State(folder)
        except (OSError, sqlite3.Error) as error:
            why = f"{folder}: {(getattr(error, 'strerror', None) or str(error)).lower()}"
    state = State(None)
    state.why_not = why
    return state


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
