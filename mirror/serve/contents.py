"""The bytes of a file of a snapshot, each proved by the id of its chunk before it is given away.

Owns where they are looked for: in the packs, or of a tree in the live file first, then in the packs, then where else the live tree
may have them. If a place fails in the middle (a pack went, a live file was published over), the next chunk comes from another
one. Blocks are held for a while, within a number of bytes; a visitor who is slow holds no more than a piece.

A range begins at a chunk. How long the chunks before it are is known from the index, or from a look through the live file; for a
long list that is remembered. Lengths are believed as the index says them: the chunks that are sent are proved, those that are
passed over are not read.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import Final, Protocol

from mirror.chunking import AVERAGES, ChunkId, chunk_id, cut
from mirror.errors import DamageError, NotFound
from mirror.keys import show
from mirror.manifest import WithContent
from mirror.pack import PlainBlock, Slot
from mirror.serve.paths import Objects
from mirror.serve.places import Places
from mirror.serve.recent import Recent
from mirror.site import Content, Site
from mirror.store import ReadableStore
from mirror.transfer.fetch import Span, Unreadable, blocks, extract

PIECE: Final = 256 << 10  # bytes that are given at once
Elsewhere = Callable[[WithContent, int], Sequence[bytes] | None]


class Source(Protocol):
    """A place that has the chunks of one file. For one thread at a time."""

    def length(self, id_: ChunkId) -> int | None:
        """How long a chunk is, where that is known without reading it."""
        ...

    def chunk(self, id_: ChunkId, at: int) -> bytes:
        """A chunk, proved; at: where it begins in the file. Unreadable."""
        ...

    def rest(self) -> None:
        """A while will pass until the next chunk: hold nothing that can be had again."""
        ...

    def close(self) -> None:
        """Give back what is open."""
        ...


class Contents:
    """The contents of one target. Any thread may ask. memory: bytes of blocks that are held. live: the live place of a tree."""

    def __init__(self, store: ReadableStore, objects: Objects, places: Places, memory: int, live: Site | None = None) -> None:
        self._objects, self._live = objects, live
        self._packs = Packs(store, places, memory)
        self._lengths: Recent[bytes, array[int]] = Recent(memory // 8)

    def pieces(self, entry: WithContent, start: int, end: int, elsewhere: Elsewhere) -> Iterator[bytes]:
        """The bytes [start, end) of a file, in pieces of about PIECE. elsewhere: more paths of the live tree to look in, by how
        often it was asked; None when there are no more. DamageError when they can be had from nowhere."""
        source = _Sources(self._sources(entry, elsewhere), entry)
        known = (self._lengths.look(entry.more.digest) if entry.more else None) or array("I")
        learnt = array("I")
        held: list[memoryview] = []
        at = size = 0
        try:
            for number, id_ in enumerate(self._ids(entry)):
                if at >= end:
                    if end == entry.size:
                        raise _other_size(entry, "more than that")
                    break
                length = known[number] if number < len(known) else source.length(id_) if at < start else None
                if length is None or at + length > start:
                    data = source.chunk(id_, at)
                    length = len(data)
                    held.append(memoryview(data)[max(0, start - at) : max(0, end - at)])
                    size += len(held[-1])
                at += length
                learnt.append(length)
                if size >= PIECE:
                    piece, held, size = b"".join(held), [], 0
                    source.rest()
                    yield piece
            if at < end or (end == entry.size and at != end):
                raise _other_size(entry, str(at))
            if held:
                yield b"".join(held)
        finally:
            source.close()
            if entry.more is not None and len(learnt) > len(known):
                self._lengths.put(entry.more.digest, learnt, 4 * len(learnt) + 100)

    def _ids(self, entry: WithContent) -> Iterator[ChunkId]:
        try:
            yield from self._objects.chunk_ids(entry)
        except NotFound as error:
            raise DamageError("cannot read", where=str(error), why="it is not there, and a live snapshot needs it") from error

    def _sources(self, entry: WithContent, elsewhere: Elsewhere) -> Iterator[Source]:
        """Where the content may be, the likeliest first."""
        since = time.monotonic()
        tried: set[bytes] = set()
        if self._live is not None:
            tried.add(entry.path)
            yield LiveFile(self._live, entry.path, entry)
        yield self._packs
        if self._packs.places.refresh(since):
            yield self._packs
        asked = 0
        while self._live is not None and (paths := elsewhere(entry, asked)) is not None:
            yield from (LiveFile(self._live, path, entry) for path in paths if path not in tried)
            tried.update(paths)
            yield self._packs  # it may have been displaced meanwhile
            asked += 1


def _other_size(entry: WithContent, size: str) -> DamageError:
    why = f"the entry says that it has {entry.size} bytes, its chunks have {size}"
    return DamageError("cannot use", where=show(entry.path), why=why, hint="run `mirror verify`")


class _Sources:
    """One source after another, each until it fails."""

    def __init__(self, sources: Iterator[Source], entry: WithContent) -> None:
        self._left, self._entry = sources, entry
        self._now = next(sources)

    def length(self, id_: ChunkId) -> int | None:
        return self._now.length(id_)

    def chunk(self, id_: ChunkId, at: int) -> bytes:
        while True:
            try:
                return self._now.chunk(id_, at)
            except Unreadable as error:
                self._now.close()
                following = next(self._left, None)
                if following is None:
                    raise DamageError("cannot read", where=show(self._entry.path), why=f"{error.pack} {error.why}".strip(),
                                      hint="run `mirror verify`: it names what is affected") from error  # fmt: skip
                self._now = following

    def rest(self) -> None:
        self._now.rest()

    def close(self) -> None:
        self._now.close()


class Packs:
    """The packs of a target, as a source for every file of it. Any thread may ask."""

    def __init__(self, store: ReadableStore, places: Places, memory: int) -> None:
        self._store, self.places = store, places
        self._blocks: Recent[tuple[str, Slot], PlainBlock] = Recent(memory)

    def length(self, id_: ChunkId) -> int | None:
        """See `Source.length`."""
        place = next(self.places.find(id_), None)
        return place.length if place is not None else None

    def chunk(self, id_: ChunkId, at: int) -> bytes:
        """See `Source.chunk`."""
        failure = Unreadable("", "the index lists no place for a chunk", (id_,))
        for place in self.places.find(id_):
            try:
                block = self._blocks.get((place.pack, place.slot), lambda place=place: self._read(place.pack, place.slot))  # type: ignore[misc]
                return bytes(extract(block, place, id_))
            except Unreadable as error:
                failure = error
        raise failure

    def _read(self, pack: str, slot: Slot) -> tuple[PlainBlock, int]:
        ((_, _, block),) = blocks(self._store, [Span(pack, slot.offset, slot.offset + slot.stored, [slot])])
        if isinstance(block, Unreadable):
            raise block
        return block, len(block.plain) + 40 * len(block.lengths)

    def rest(self) -> None:
        """See `Source.rest`: blocks are held for all."""

    def close(self) -> None:
        """See `Source.close`."""


class LiveFile:
    """A live file that may have the content of an entry: it is cut as the entry was, and what it has is proved. It may change at
    any moment."""

    def __init__(self, site: Site, path: bytes, entry: WithContent) -> None:
        self._site, self._path, self._size, self._class = site, path, entry.size, entry.class_
        self._content: Content | None = None
        self._have, self._at = memoryview(b""), 0  # read already: bytes from _at
        self._largest = 4 * AVERAGES[self._class]

    def length(self, id_: ChunkId) -> int | None:
        """See `Source.length`: it is to be cut first."""
        return None

    def chunk(self, id_: ChunkId, at: int) -> bytes:
        """See `Source.chunk`."""
        try:
            data = self._next(at)
        except NotFound:
            raise Unreadable("", f"there is no {show(self._path)} in the live tree") from None
        except OSError as error:
            raise Unreadable("", f"{show(self._path)} of the live tree cannot be read ({error.strerror or error})") from error
        if chunk_id(data) != id_:
            raise Unreadable("", f"{show(self._path)} of the live tree is another file now")
        return data

    def _next(self, at: int) -> bytes:
        """The chunk that begins at `at`, as the file is cut now."""
        content = self._content
        if content is None:
            content = self._content = self._site.open(self._path)
        if content.size != self._size:
            raise Unreadable("", f"{show(self._path)} of the live tree has another size now")
        wanted = min(self._largest, self._size - at)
        if at < self._at or self._at + len(self._have) < at + wanted:
            self._read(content, at, min(PIECE + self._largest, self._size - at))
        window = self._have[at - self._at :]
        return bytes(next(cut(window, self._class), b""))

    def _read(self, content: Content, at: int, count: int) -> None:
        stream, kept = content.stream, b""
        if hasattr(stream, "seek"):
            stream.seek(at)
        else:  # an object of a bucket comes once, from its beginning
            if at < self._at:
                raise OSError("it was read past already")
            kept = bytes(self._have[at - self._at :])
            behind = self._at + len(self._have)
            while behind < at:
                passed = stream.read(min(PIECE, at - behind))
                if not passed:
                    raise OSError("it ended early")
                behind += len(passed)
        parts, left = [kept], count - len(kept)
        while left > 0 and (data := stream.read(left)):
            parts.append(data)
            left -= len(data)
        self._have, self._at = memoryview(b"".join(parts)), at

    def rest(self) -> None:
        """See `Source.rest`."""
        if self._content is not None and hasattr(self._content.stream, "seek"):
            self._have = memoryview(b"")

    def close(self) -> None:
        """See `Source.close`."""
        if self._content is not None:
            self._content.stream.close()
            self._content = None
