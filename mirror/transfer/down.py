"""From packs into a tree: what one worker does with one batch of files.

Each range of a pack is read once, in order; every chunk is proved by its id and written with pwrite into a temporary file
beside its destination. When the batch is complete: one syncfs, then the renames, so neither a reader nor a power cut sees half
a file. Small files are put together in memory and written in one call. Parts of huge files go to a draft that the coordinator
made, and finishes.
"""

from __future__ import annotations

import os
import sqlite3
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from typing import NamedTuple

import msgspec
import xxhash

from mirror.chunking import ChunkId, identify
from mirror.errors import NotFound
from mirror.lookup import Location, open_places, places
from mirror.manifest import split_ids
from mirror.pack import Slot
from mirror.site import Site, SiteSpec
from mirror.site.ahead import AT_ONCE, Ahead, Opener
from mirror.site.open import open_site
from mirror.site.writing import Description, Draft, FolderWriter, fingerprint_of, write_at
from mirror.store import StoreSpec
from mirror.store.open import open_store
from mirror.store.wrap import CountingStore, Counts
from mirror.transfer import donors
from mirror.transfer.donors import Donor
from mirror.transfer.fetch import Unreadable, blocks, extract, spans
from mirror.workers import Ask, Tell

SMALL = 1 << 20
_HOLE = bytes(64 << 10)  # chunks of zeros of at least this size become holes


class Piece(NamedTuple):
    """A chunk of a file: its id, where it is, its offset in the file."""

    id: ChunkId
    place: Location
    at: int


class Wanted(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """A file of a batch, or a part of one. ids: of its chunks, joined. what: metadata to set.

    draft: name of a temporary file made by the coordinator, of which this is the part that begins at offset `at`; b"" for a
    whole file. compare: a file of that size is there and stays when its fingerprint is the same (--checksum). live: paths of a
    live tree that may have the content, where packs have it not; class_: how its chunks are cut. donors: live files that have what
    packs have not of it."""

    path: bytes
    size: int
    fingerprint: bytes
    what: Description
    ids: bytes
    draft: bytes = b""
    at: int = 0
    compare: bool = False
    live: tuple[bytes, ...] = ()
    class_: int = 0
    donors: tuple[Donor, ...] = ()


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(list[Wanted])


def encode_batch(files: list[Wanted]) -> bytes:
    """A batch as it crosses to a worker: 0.5 µs a file, pickle takes 20."""
    return _encoder.encode(files)


class Job(NamedTuple):
    """What every batch of a run shares; picklable. index_path: the file that `lookup.open_places` opens; live: the live place of
    the target, if it has one."""

    root: str
    store: StoreSpec
    index_path: str
    live: SiteSpec | None = None


class Written(NamedTuple):
    """What became of one file. problem: kind of docs/events.md or empty; unset: metadata that could not be set, as sentences.

    kept: it was the same already. part: it is about a part of a huge file."""

    path: bytes
    problem: str = ""
    why: str = ""
    unset: tuple[str, ...] = ()
    kept: bool = False
    part: bool = False


class Outcome(NamedTuple):
    """What a batch did: files written without anything to say of them, what is to be said of others, bytes, requests."""

    written: int
    files: list[Written]
    bytes_written: int
    counts: Counts


@lru_cache(maxsize=2)
def _store(spec: StoreSpec) -> CountingStore:
    return CountingStore(open_store(spec))


@lru_cache(maxsize=2)
def _live(spec: SiteSpec) -> Site:
    return open_site(spec)


_indexes: dict[tuple[str, int], sqlite3.Connection] = {}


def _index(path: str) -> sqlite3.Connection:
    key = path, os.stat(path).st_ino
    if key not in _indexes:
        _indexes[key] = open_places(path)
    return _indexes[key]


def release() -> None:
    """Give back what batches in this process have opened: another run may have other credentials, and whoever keeps an index open
    keeps the next one from writing it."""
    while _indexes:
        _indexes.popitem()[1].close()
    _store.cache_clear()
    _live.cache_clear()


@dataclass
class _Growing:
    """A file that is being put together."""

    wanted: Wanted
    pieces: list[Piece]
    left: int
    small: dict[int, bytes] = field(default_factory=dict)
    draft: Draft | None = None


@dataclass
class _Batch:
    writer: FolderWriter
    done: list[tuple[Draft, Wanted, tuple[str, ...]]] = field(default_factory=list)
    results: list[Written] = field(default_factory=list)
    failed: set[bytes] = field(default_factory=set)
    written: int = 0
    plain: int = 0

    def fail(self, growing: _Growing, kind: str, why: str) -> None:
        path = growing.wanted.path
        if path in self.failed:
            return
        self.failed.add(path)
        self.results.append(Written(path, kind, why, part=bool(growing.wanted.draft)))
        if growing.draft is not None:
            if not growing.wanted.draft:
                self.writer.drop(path, growing.draft.name)
            os.close(growing.draft.fd)
            growing.draft = None
        growing.small.clear()

    def take(self, growing: _Growing, at: int, data: memoryview) -> None:
        """Put a chunk where it belongs; finish the file with its last one."""
        wanted = growing.wanted
        if wanted.path in self.failed:
            return
        try:
            if wanted.size <= SMALL and not wanted.draft:
                growing.small[at] = bytes(data)
            else:
                if growing.draft is None:
                    growing.draft = self._begin(wanted)
                if len(data) < len(_HOLE) or data[: len(_HOLE)] != _HOLE or any(data):
                    write_at(growing.draft.fd, data, at)
                self.written += len(data)
            growing.left -= 1
            if not growing.left:
                self.finish(growing)
        except OSError as error:
            self.fail(growing, *why_not(error))

    def _begin(self, wanted: Wanted) -> Draft:
        if wanted.draft:
            return Draft(self.writer.reopen(wanted.path, wanted.draft), wanted.draft)
        return self.writer.draft(wanted.path, wanted.size)

    def finish(self, growing: _Growing) -> None:
        wanted = growing.wanted
        if wanted.draft:
            assert growing.draft is not None
            os.close(growing.draft.fd)
            growing.draft = None
            self.results.append(Written(wanted.path, part=True))
            return
        if growing.draft is None:
            data = b"".join(growing.small[at] for at in sorted(growing.small))
            growing.small.clear()
            if xxhash.xxh3_128_digest(data) != wanted.fingerprint:
                self.fail(growing, "damaged", "its chunks are not what its fingerprint says")
                return
            growing.draft = self.writer.draft(wanted.path)
            write_at(growing.draft.fd, data, 0)
            self.written += len(data)
        unset = tuple(self.writer.describe(growing.draft.fd, wanted.what))
        os.close(growing.draft.fd)
        self.done.append((growing.draft, wanted, unset))
        growing.draft = None

    def settle(self) -> None:
        """Make the batch durable, then visible."""
        if not self.done:
            return
        self.writer.settle()
        for draft, wanted, unset in self.done:
            try:
                self.writer.put(draft, wanted.path)
                if unset:
                    self.results.append(Written(wanted.path, unset=unset))
                self.plain += not unset
            except OSError as error:
                self.writer.drop(wanted.path, draft.name)
                self.results.append(Written(wanted.path, *why_not(error)))
        self.done = []


def why_not(error: OSError) -> tuple[str, str]:
    """(problem kind, why) of a failed write. A full disk is no file's problem: TemporaryError is raised for it by the caller."""
    if error.errno in _NO_SPACE:
        raise error
    kind = "name" if error.errno in _BAD_NAME else "unwritable"
    return kind, _BLOCKED.get(error.errno or 0, error.strerror or str(error))


_NO_SPACE = (28, 122)  # ENOSPC, EDQUOT
_BAD_NAME = (36, 84, 22)  # ENAMETOOLONG, EILSEQ, EINVAL
_BLOCKED = {
    2: "the folder that it is in could not be made",
    17: "a file of that name is there",
    21: "a folder of that name is there",
    39: "a folder of that name is there and holds other files",
    40: "a link lies in the way",
    20: "something on the way to it is no folder",
}


def run_batch(ask: Ask, tell: Tell, job: Job, files: bytes) -> Outcome:
    """Bring these files (of `encode_batch`) into the tree. Idempotent. OSError ENOSPC ends the batch, what is wrong with one
    file is its result."""
    store = _store(job.store)
    before = store.counts
    writer = FolderWriter(job.root)
    batch = _Batch(writer)
    growing: list[_Growing] = []
    try:
        growing = _start(batch, _decoder.decode(files), _index(job.index_path), job.live)
        _fill(store, batch, growing)
        batch.settle()
    except BaseException:
        for one in growing:
            if one.draft is not None:
                os.close(one.draft.fd)
                if not one.wanted.draft:
                    writer.drop(one.wanted.path, one.draft.name)
        for draft, wanted, _ in batch.done:
            writer.drop(wanted.path, draft.name)
        raise
    finally:
        writer.close()
    return Outcome(batch.plain, batch.results, batch.written, store.counts - before)


def _start(batch: _Batch, files: list[Wanted], index: sqlite3.Connection, place: SiteSpec | None) -> list[_Growing]:
    """Begin all files whose chunks are in packs; the others are taken from the live place at once."""
    growing, elsewhere = [], []
    lists = [split_ids(wanted.ids) for wanted in files]
    found = places(index, chain.from_iterable(lists))
    for wanted, ids in zip(files, lists, strict=True):
        if wanted.compare and _is_there(batch.writer, wanted):
            unset = batch.writer.describe_file(wanted.path, wanted.what)
            batch.results.append(Written(wanted.path, unset=tuple(unset), kept=True))
            continue
        pieces, end = _pieces(ids, found, wanted.at)
        one = _Growing(wanted, pieces, len(pieces))
        if len(pieces) < len(ids) and wanted.donors and place is not None:
            if _patched(batch, _live(place), one, ids, found):
                growing.append(one)
        elif len(pieces) < len(ids):
            elsewhere.append(one)
        elif end > wanted.size or (end < wanted.size and not wanted.draft):
            batch.fail(one, "damaged", f"its chunks have {end} bytes, the manifest says {wanted.size}")
        elif pieces:
            growing.append(one)
        else:
            try:
                batch.finish(one)
            except OSError as error:
                batch.fail(one, *why_not(error))
    _take_live(batch, elsewhere, place)
    return growing


def _take_live(batch: _Batch, files: list[_Growing], place: SiteSpec | None) -> None:
    """Take files from the live place; those that it has not fail."""
    ahead = None
    live: Opener | None = _live(place) if place is not None and files else None
    if place is not None and files and "://" in place.url:
        small = (one.wanted.live[0] for one in files if one.wanted.size <= AT_ONCE and one.wanted.live)
        live = ahead = Ahead(_live(place), small)
    try:
        for one in files:
            if live is None or not _from_live(batch, live, one):
                lost = "neither the packs nor the live files have all of it any more"
                batch.fail(one, "damaged", lost if place is not None else "the index lists no place for a part of it")
    finally:
        if ahead is not None:
            ahead.close()


def _patched(batch: _Batch, live: Site, one: _Growing, ids: list[ChunkId], found: dict[ChunkId, Location]) -> bool:
    """Begin a file of which packs have a part, with what live files have of it; whether it goes on. If not, it has failed, or is
    complete."""
    wanted = one.wanted
    stretches = donors.located(live, wanted.donors, {id_ for id_ in ids if id_ not in found})
    one.pieces, asked, at = [], [], 0
    for id_ in ids:
        place = found.get(id_) or stretches.get(id_)
        if place is None:
            batch.fail(one, "damaged", "neither the packs nor the live files have all of it any more")
            return False
        if isinstance(place, donors.Stretch):
            asked.append((id_, at))
        else:
            one.pieces.append(Piece(id_, place, at))
        at += place.length
    if at != wanted.size:
        batch.fail(one, "damaged", f"its chunks have {at} bytes, the manifest says {wanted.size}")
        return False
    one.left = len(ids)
    for at, data in donors.taken(live, stretches, asked):
        if data is None:
            batch.fail(one, "damaged", "a live file that has a part of it was changed meanwhile")
            return False
        batch.take(one, at, memoryview(data))
    return bool(one.pieces) and wanted.path not in batch.failed


def _pieces(ids: list[ChunkId], found: dict[ChunkId, Location], at: int) -> tuple[list[Piece], int]:
    """The pieces of a file from offset `at`, up to the first that has no place; and where they end."""
    pieces = []
    for id_ in ids:
        place = found.get(id_)
        if place is None:
            break
        pieces.append(Piece(id_, place, at))
        at += place.length
    return pieces, at


def _from_live(batch: _Batch, live: Opener, one: _Growing) -> bool:
    """Take a file's content from a live tree; False when none of the paths has it. What is wrong with writing it is its result."""
    wanted = one.wanted
    for path in wanted.live:
        try:
            content = live.open(path)
        except (NotFound, OSError):
            continue
        with content.stream:
            if content.size != wanted.size:
                continue
            taking = _Taking(batch, one)
            try:
                _, _, joined = identify(content.stream.read, content.size, wanted.class_, taking.take)
            except OSError:
                joined = b""
        if taking.failed is not None:
            batch.fail(one, *why_not(taking.failed))
            return True
        if joined == wanted.ids:
            try:
                batch.finish(one)
            except OSError as error:
                batch.fail(one, *why_not(error))
            return True
        taking.drop()
    return False


@dataclass
class _Taking:
    """A file on its way from a live tree, not proved before all of it is there. failed: why it could not be written."""

    batch: _Batch
    one: _Growing
    at: int = 0
    failed: OSError | None = None

    def take(self, id_: ChunkId, data: bytes | memoryview) -> None:
        one = self.one
        if self.failed is not None:
            return
        try:
            if one.wanted.size <= SMALL:
                one.small[self.at] = bytes(data)
            else:
                if one.draft is None:
                    one.draft = self.batch.writer.draft(one.wanted.path, one.wanted.size)
                if data[: len(_HOLE)] != _HOLE or any(data):
                    write_at(one.draft.fd, data, self.at)
                self.batch.written += len(data)
        except OSError as error:
            self.failed = error
        self.at += len(data)

    def drop(self) -> None:
        self.one.small.clear()
        if self.one.draft is not None:
            os.close(self.one.draft.fd)
            self.batch.writer.drop(self.one.wanted.path, self.one.draft.name)
            self.one.draft = None


def _is_there(writer: FolderWriter, wanted: Wanted) -> bool:
    try:
        fd = writer.reopen(wanted.path, wanted.path.rpartition(b"/")[2])
    except OSError:
        return False
    with os.fdopen(fd, "rb") as stream:
        return fingerprint_of(stream.fileno()) == wanted.fingerprint


def _fill(store: CountingStore, batch: _Batch, growing: list[_Growing]) -> None:
    needed: dict[tuple[str, Slot], list[tuple[_Growing, Piece]]] = {}
    for one in growing:
        for piece in one.pieces:
            needed.setdefault((piece.place.pack, piece.place.slot), []).append((one, piece))
    for pack, slot, block in blocks(store, spans(needed)):
        proved: dict[ChunkId, memoryview] = {}
        for one, piece in needed.pop((pack, slot)):
            try:
                if isinstance(block, Unreadable):
                    raise block
                if piece.id not in proved:
                    proved[piece.id] = extract(block, piece.place, piece.id)
            except Unreadable as error:
                batch.fail(one, "damaged", f"{error.pack}: {error.why}")
                continue
            batch.take(one, piece.at, proved[piece.id])
