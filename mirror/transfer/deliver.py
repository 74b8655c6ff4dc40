"""Whole files out of packs or a live tree, to a site that takes them whole: a bucket, or whatever fsspec can write.

Small files are put together in this process, batch by batch, so that a block that neighbours share is read and unpacked once, and
are put by a few threads: an object service answers slowly and takes many at a time. A large file streams, chunk by proved chunk;
the site sees to it that nothing is visible before its last byte was right. Sites are asked from threads, everything else happens in
the one that runs this.

What a batch finds damaged is tried once more each time that `look_again` says that there is something new to look at; then it is
damage. What packs do not have comes from the live tree, if the target is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain, islice
from queue import SimpleQueue
from typing import Final, NamedTuple

import msgspec
import xxhash

from mirror.chunking import ChunkId
from mirror.events import Advanced, Job, Problem
from mirror.keys import show
from mirror.lookup import ChunkIndex, Location
from mirror.manifest import File, split_ids
from mirror.pack import Slot
from mirror.site import ANYTHING, Lost, WritableSite, Written
from mirror.site.writing import Description
from mirror.spool import Spool
from mirror.store import ReadableStore
from mirror.transfer.down import why_not
from mirror.transfer.fetch import WINDOW_IDS, Unreadable, blocks, contents, extract, spans

_SMALL: Final = 8 << 20  # bytes; files up to here are put together in memory
_BATCH_BYTES, _BATCH_FILES = 16 << 20, 2048
_FLIGHT_BYTES, _FLIGHT_FILES = 16 << 20, 256  # put together, and not yet there
_SMALL_IDS: Final = 65_536


class Order(NamedTuple):
    """A file to bring to the site: its entry, its description there, and what is expected there."""

    entry: File
    what: Description
    expected: str | None = ANYTHING


class _Again(NamedTuple):
    """An order that could not be carried out, and why."""

    order: Order
    why: str


def _agains() -> Spool[_Again]:
    """As many as there are: of an old snapshot whose files were all moved since, all of them."""
    return Spool(msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(_Again).decode)


class _Piece(NamedTuple):
    id: ChunkId
    place: Location
    at: int


@dataclass
class _Growing:
    """A small file that is being put together."""

    order: Order
    left: int
    parts: dict[int, bytes] = field(default_factory=dict)
    failed: bool = False


@dataclass
class Delivery:
    """One transfer. index: the merged index as of now; ids: the chunk ids of an entry; look_again: whether the index is fresher
    now.

    on_unset: told of what of a description could not be set (path, sentence); on_failed: of each path that was not put as well
    (path, kind of problem, why); live: the content of an entry from a live tree, proved chunk by chunk, or Unreadable; None when
    the target is no tree."""

    store: ReadableStore
    site: WritableSite
    index: Callable[[], ChunkIndex]
    ids: Callable[[File], Iterator[ChunkId]]
    look_again: Callable[[], bool]
    job: Job
    on_problem: Callable[[Problem], None]
    on_unset: Callable[[bytes, str], None]
    threads: int = 8
    on_failed: Callable[[bytes, str, str], None] = lambda path, kind, why: None
    live: Callable[[File], Iterator[bytes]] | None = None
    files_written: int = 0
    bytes_written: int = 0
    _second: Spool[_Again] = field(default_factory=_agains)
    _flying: dict[Future[Written | Lost], tuple[Order, int]] = field(default_factory=dict)
    _flying_bytes: int = 0
    _done: SimpleQueue[Future[Written | Lost]] = field(default_factory=SimpleQueue)
    _told: tuple[int, int] = (0, 0)

    def run(self, orders: Iterable[Order]) -> None:
        """Bring them all. OSError when there is no room; MirrorError when the place fails as a whole."""
        try:
            self._round(orders)
            while len(self._second) and self.look_again():
                again, self._second = self._second, _agains()
                with again:
                    self._round(each.order for each in again)
            for order, why in self._second:
                self._problem(order.entry.path, "damaged", why)
        finally:
            self._second.close()

    def _round(self, orders: Iterable[Order]) -> None:
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="mirror-put")
        try:
            batch: list[Order] = []
            size = 0
            for order in orders:
                entry = order.entry
                if entry.size > _SMALL or (entry.more is not None and entry.more.entries > _SMALL_IDS):
                    self._large(order)
                    continue
                if batch and (size + entry.size > _BATCH_BYTES or len(batch) >= _BATCH_FILES):
                    self._small(pool, batch)
                    batch, size = [], 0
                batch.append(order)
                size += entry.size
            self._small(pool, batch)
            self._land(0)
        finally:
            # After an error what has not begun is dropped; what is on its way comes to its end.
            pool.shutdown(wait=True, cancel_futures=True)
            self._flying.clear()
            self._flying_bytes, self._done = 0, SimpleQueue()

    # -- small files -----------------------------------------------------------------------------------------------

    def _small(self, pool: ThreadPoolExecutor, batch: list[Order]) -> None:
        for order, data in self._put_together(batch):
            size = len(data)
            self._land(max(0, _FLIGHT_BYTES - size), _FLIGHT_FILES - 1)
            future = pool.submit(self.site.put, order.entry.path, size, [data], order.what, order.expected)
            self._flying[future] = order, size
            self._flying_bytes += size
            future.add_done_callback(self._done.put)  # a `wait` would look at all of them each time
        self._say_progress()

    def _put_together(self, batch: list[Order]) -> Iterator[tuple[Order, bytes]]:
        """The files of a batch as they become complete; a block is read once."""
        lists = [split_ids(o.entry.chunks if o.entry.more is None else b"".join(self.ids(o.entry))) for o in batch]
        found = self.index().places(chain.from_iterable(lists))
        needed: dict[tuple[str, Slot], list[tuple[_Growing, _Piece]]] = {}
        for order, ids in zip(batch, lists, strict=True):
            pieces, why = _pieces(ids, found, order.entry.size)
            if why:
                yield from self._living(order, why)
            elif not pieces:
                yield from self._finish(_Growing(order, 0))
            growing = _Growing(order, len(pieces))
            for piece in pieces:
                needed.setdefault((piece.place.pack, piece.place.slot), []).append((growing, piece))
        for pack, slot, block in blocks(self.store, spans(needed)):
            proved: dict[ChunkId, bytes] = {}
            for growing, piece in needed.pop((pack, slot)):
                if growing.failed:
                    continue
                try:
                    if isinstance(block, Unreadable):
                        raise block
                    if piece.id not in proved:
                        proved[piece.id] = bytes(extract(block, piece.place, piece.id))
                except Unreadable as error:
                    growing.failed = True
                    growing.parts.clear()
                    self._second.append(_Again(growing.order, f"{error.pack}: {error.why}"))
                    continue
                growing.parts[piece.at] = proved[piece.id]
                growing.left -= 1
                if not growing.left:
                    yield from self._finish(growing)

    def _living(self, order: Order, why: str) -> Iterator[tuple[Order, bytes]]:
        """A file that packs do not have, for this reason."""
        try:
            if self.live is None:
                raise Unreadable("", why)
            data = b"".join(self.live(order.entry))
            if xxhash.xxh3_128_digest(data) != order.entry.fingerprint:
                raise Unreadable("", "its chunks are not what its fingerprint says")
        except Unreadable as error:
            self._second.append(_Again(order, error.why))
            return
        yield order, data

    def _finish(self, growing: _Growing) -> Iterator[tuple[Order, bytes]]:
        data = b"".join(growing.parts[at] for at in sorted(growing.parts))
        growing.parts.clear()
        if xxhash.xxh3_128_digest(data) != growing.order.entry.fingerprint:
            self._second.append(_Again(growing.order, "its chunks are not what its fingerprint says"))
            return
        yield growing.order, data

    def _land(self, most_bytes: int, most_files: int = 0) -> None:
        """Wait until at most so much is on its way."""
        while self._flying and (len(self._flying) > most_files or self._flying_bytes > most_bytes):
            future = self._done.get()
            order, size = self._flying.pop(future)
            self._flying_bytes -= size
            self._landed(order, size, future.result)

    # -- large files -----------------------------------------------------------------------------------------------

    def _large(self, order: Order) -> None:
        entry = order.entry
        try:
            self._landed(
                order,
                entry.size,
                lambda: self.site.put(entry.path, entry.size, self._proved(entry), order.what, order.expected),
            )
        except Unreadable as error:
            self._second.append(_Again(order, f"{error.pack}: {error.why}" if error.pack else error.why))
        self._say_progress()

    def _proved(self, entry: File) -> Iterator[bytes]:
        """A file's content; Unreadable at the latest before its last byte is taken for the end."""
        whole, have = xxhash.xxh3_128(), 0
        for chunk in self._chunks(entry):
            have += len(chunk)
            if have > entry.size:
                break
            whole.update(chunk)
            yield chunk
        if have != entry.size:
            raise Unreadable("", f"its chunks do not have the {entry.size:,} bytes that the manifest says")
        if whole.digest() != entry.fingerprint:
            raise Unreadable("", "its chunks are not what its fingerprint says")

    def _chunks(self, entry: File) -> Iterator[bytes]:
        ids = self.ids(entry)
        while self.live is not None and (some := list(islice(ids, WINDOW_IDS))):
            if self.index().missing(some):
                return self.live(entry)
        return contents(self.store, self.index(), self.ids(entry))

    # -- results ---------------------------------------------------------------------------------------------------

    def _landed(self, order: Order, size: int, result: Callable[[], Written | Lost]) -> None:
        path = order.entry.path
        try:
            outcome = result()
        except OSError as error:
            self._problem(path, *why_not(error))
            return
        if isinstance(outcome, Lost):
            self._problem(path, "unwritable", "somebody else has put a file there meanwhile")
            return
        self.files_written += 1
        self.bytes_written += size
        for sentence in outcome.unset:
            self.on_unset(path, sentence)

    def _say_progress(self) -> None:
        files, size = self._told
        if (self.files_written, self.bytes_written) != self._told:
            self._told = self.files_written, self.bytes_written
            self.job.say(Advanced(self.files_written - files, self.bytes_written - size))

    def _problem(self, path: bytes, kind: str, why: str) -> None:
        self.on_failed(path, kind, why)
        self.on_problem(Problem(show(path), kind, why))


def _pieces(ids: list[ChunkId], found: dict[ChunkId, Location], size: int) -> tuple[list[_Piece], str]:
    """The pieces of a file, or why there are none."""
    pieces, at = [], 0
    for id_ in ids:
        place = found.get(id_)
        if place is None:
            return [], "the index lists no place for a part of it"
        pieces.append(_Piece(id_, place, at))
        at += place.length
    if at != size:
        return [], f"its chunks have {at} bytes, the manifest says {size}"
    return pieces, ""
