"""Where chunks are, as far as the index has been read: nobody waits for all of it who needs one chunk.

The index of a large target is hundreds of megabytes, and which of its fragments lists a chunk is not known before they have been
read. So they are read in the background, from the moment the target is open; who asks for a chunk looks through those that are
there and waits for more only as long as it is not found. What was read lies in one temporary file, 48 bytes a chunk, and is
searched there: memory does not grow with the index. Ids are hashes, so a place in a sorted list is guessed within a few hundred
rows.

Nothing here is trusted: a place is where a chunk *may* be. A fragment that a prune has doomed may still be there and name packs
that are gone, so all places of a chunk are given, one after another, and the reader proves what it finds by the id.

    places = Places(store, told)
    places.begin()
    for place in places.find(id_):   # until one will do
        ...
"""

from __future__ import annotations

import os
import struct
import tempfile
import threading
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from math import isqrt
from typing import Final, NamedTuple

from mirror.chunking import MAX_CHUNK, ChunkId
from mirror.errors import DamageError, MirrorError, NotFound
from mirror.index import ID, Fragment, open_fragment
from mirror.keys import INDEX, PACK, ObjectName
from mirror.lookup import Location, fetch_fragment
from mirror.pack import Slot
from mirror.store import ReadableStore

_PLACE: Final = struct.Struct("<IIII")  # as in a fragment: pack, block, offset, length
_PACK: Final = struct.Struct("<32sQII")  # digest, epoch, its first slot, slots
_SLOT: Final = struct.Struct("<QQQ")  # offset, stored, plain
_READERS: Final = 4  # fragments read at once, up to 10 MB each
_HOT: Final = 4  # fragments in which something was found last: neighbours by path are neighbours there
_LIST_SECONDS: Final = 1.0  # between two listings that were asked for because something was not found


class _Table(NamedTuple):
    """A fragment in the file: how many chunks and packs it lists, and where each part of it begins."""

    chunks: int
    packs: int
    ids: int
    places: int
    lines: int
    slots: int


class Places:
    """The places of a target's chunks. Any thread may ask. told: called, by any thread, with what is wrong with a fragment."""

    def __init__(self, store: ReadableStore, told: Callable[[str], None]) -> None:
        self._store, self._told = store, told
        self._file = tempfile.TemporaryFile(prefix="mirror-places-", buffering=0)  # noqa: SIM115 - closed by `close`
        self._end = 0
        self._known: set[str] = set()  # fragments that are read, or are being read
        self._tables: list[_Table] = []
        self._hot: list[_Table] = []
        self._waited = 0  # fragments that are to be read, and listings that are under way
        self._changed = threading.Condition()
        self._listing = threading.Lock()
        self._listed = float("-inf")  # when the last listing began
        self._failure: MirrorError | None = None  # why a fragment could not be fetched
        self._pool = ThreadPoolExecutor(_READERS, "mirror-places")
        self._closed = False

    def begin(self) -> None:
        """Begin to read what is there."""
        self._expect(1)
        self._pool.submit(self._begin)

    def close(self) -> None:
        """Stop reading, and forget all. Who waits gets nothing more."""
        self._closed = True
        with self._changed:
            self._changed.notify_all()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._file.close()

    def settle(self) -> None:
        """Wait until all that was listed has been read."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or not self._waited)

    # -- questions -----------------------------------------------------------------------------------------------

    def find(self, id_: ChunkId) -> Iterator[Location]:
        """Places where a chunk may be, as they become known; ends when all fragments have been read. TemporaryError and its like
        when one of them could not be fetched and no other has the chunk."""
        hot = list(self._hot)
        for table in hot:
            yield from self._search(table, id_)
        done = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda done=done: self._closed or not self._waited or len(self._tables) > done)  # type: ignore[misc]
                fresh = self._tables[done:]
                failure = self._failure
            if not fresh:
                if failure is not None:
                    raise failure
                return
            done += len(fresh)
            for table in fresh:
                if table not in hot:
                    for place in self._search(table, id_):
                        self._found_in(table)
                        yield place

    def refresh(self, since: float) -> bool:
        """Whether there are fragments now that were not there when somebody looked in vain, at `since` (time.monotonic). The store
        is asked, unless it has been since; all who wait share one answer."""
        with self._listing:
            if self._listed < since:
                time.sleep(max(0.0, self._listed + _LIST_SECONDS - time.monotonic()))
                before = len(self._known)
                self._list()
                return len(self._known) > before or self._failure is not None
            return True

    # -- reading fragments ---------------------------------------------------------------------------------------

    def _begin(self) -> None:
        try:
            with self._listing:
                self._list()
        except MirrorError as error:
            self._failure = error
        finally:
            self._expect(-1)

    def _list(self) -> None:
        self._listed = time.monotonic()
        self._failure = None
        fresh = {stat.key for stat in self._store.list(f"{INDEX}/") if ObjectName.parse(stat.key)} - self._known
        self._known |= fresh
        self._expect(len(fresh))
        for key in sorted(fresh):
            try:
                self._pool.submit(self._take, key)
            except RuntimeError:  # closed meanwhile
                self._expect(-1)

    def _expect(self, more: int) -> None:
        with self._changed:
            self._waited += more
            self._changed.notify_all()

    def _take(self, key: str) -> None:
        """Read one fragment into the file."""
        try:
            if not self._closed:
                table = self._write(fetch_fragment(self._store, key, open_fragment))
                with self._changed:
                    self._tables.append(table)
        except NotFound:
            pass  # pruned between listing and reading
        except DamageError as error:
            self._told(str(error))
        except MirrorError as error:
            self._known.discard(key)  # to be tried again
            self._failure = error
        except OSError as error:
            self._known.discard(key)
            self._failure = MirrorError("cannot keep the index", where=tempfile.gettempdir(), why=error.strerror or str(error),
                                        hint="free some room there, or name another folder in TMPDIR")  # fmt: skip
        finally:
            self._expect(-1)

    def _write(self, fragment: Fragment) -> _Table:
        lines, slots, count = [], [], 0
        for pack in fragment.packs:
            lines.append(_PACK.pack(pack.digest, pack.epoch, count, len(pack.blocks)))
            slots += [_SLOT.pack(*slot) for slot in pack.blocks]
            count += len(pack.blocks)
        parts = [fragment.ids, fragment.places, b"".join(lines), b"".join(slots)]
        with self._changed:
            at, self._end = self._end, self._end + sum(map(len, parts))
        starts = []
        for part in parts:
            starts.append(at)
            view = memoryview(part)
            while view:
                wrote = os.pwrite(self._file.fileno(), view, at)
                view, at = view[wrote:], at + wrote
        return _Table(fragment.chunks, len(lines), *starts)

    # -- searching one fragment ----------------------------------------------------------------------------------

    def _found_in(self, table: _Table) -> None:
        self._hot = [table, *(each for each in self._hot if each is not table)][:_HOT]

    def _search(self, table: _Table, id_: ChunkId) -> Iterator[Location]:
        for row in self._rows(table, id_):
            place = self._place(table, row)
            if place is not None:
                yield place

    def _rows(self, table: _Table, id_: ChunkId) -> Iterator[int]:
        """The rows of a fragment that list this id: found near where a hash of its size would be, else in a wider stretch."""
        count = table.chunks
        guess, reach = (int.from_bytes(id_[:8], "big") * count) >> 64, 2 * isqrt(count) + 8
        while True:
            low, high = max(0, guess - reach), min(count, guess + reach)
            ids = self._read(table.ids + low * ID, (high - low) * ID)
            at = bisect_left(range(high - low), id_, key=lambda row: ChunkId(ids[row * ID : row * ID + ID]))
            if (at > 0 or low == 0) and (at < high - low or high == count):
                break
            reach *= 8
        while low + at < count and self._read(table.ids + (low + at) * ID, ID) == id_:
            yield low + at
            at += 1

    def _place(self, table: _Table, row: int) -> Location | None:
        """What a row says, None for what cannot be: `decode_fragment` would have refused it."""
        pack_no, block, offset, length = _PLACE.unpack(self._read(table.places + row * _PLACE.size, _PLACE.size))
        if pack_no >= table.packs or not 0 < length <= MAX_CHUNK:
            return None
        digest, epoch, first, slots = _PACK.unpack(self._read(table.lines + pack_no * _PACK.size, _PACK.size))
        if block >= slots:
            return None
        slot = Slot(*_SLOT.unpack(self._read(table.slots + (first + block) * _SLOT.size, _SLOT.size)))
        if offset + length > slot.plain:
            return None
        return Location(ObjectName(PACK, digest, epoch).key(), slot, offset, length)

    def _read(self, at: int, length: int) -> bytes:
        return os.pread(self._file.fileno(), length, at)
