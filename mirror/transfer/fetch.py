"""Chunks out of packs: which ranges to read, and the checked bytes of each chunk.

Ranges of one pack are read once, in order, gaps up to 1 MiB read along, 8 MiB at most in one request. Every chunk is checked
against its id here, where its bytes enter, so no caller can forget it. A place that cannot be read raises Unreadable with the
ids that it was needed for; whether that is damage or a prune that went by is decided by who knows the head.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from mirror.chunking import ChunkId, chunk_id
from mirror.errors import DamageError, NotFound
from mirror.lookup import ChunkIndex, Location
from mirror.pack import PlainBlock, Slot, read_block
from mirror.store import ReadableStore

GAP = 1 << 20
SPAN = 8 << 20
WINDOW_BYTES = 16 << 20
WINDOW_IDS = 4096


class Unreadable(Exception):
    """Content that could not be had from where the index says it is. pack: its key; why: a phrase; ids: what was needed of it."""

    def __init__(self, pack: str, why: str, ids: tuple[ChunkId, ...] = ()) -> None:
        super().__init__(pack, why, ids)
        self.pack, self.why, self.ids = pack, why, ids


class Span(NamedTuple):
    """One request: bytes [start, end) of a pack, and the blocks in it that are wanted, ascending."""

    pack: str
    start: int
    end: int
    slots: list[Slot]


def spans(places: Iterable[tuple[str, Slot]]) -> Iterator[Span]:
    """The requests that read these blocks (duplicates welcome), by pack and offset.

    >>> wanted = [("p", Slot(16, 100, 1)), ("p", Slot(5_000_000, 10, 1)), ("p", Slot(116, 50, 1))]
    >>> [(span.start, span.end, len(span.slots)) for span in spans(wanted)]
    [(16, 166, 2), (5000000, 5000010, 1)]
    """
    held: Span | None = None
    for pack, slot in sorted(set(places)):
        end = slot.offset + slot.stored
        if held and held.pack == pack and slot.offset - held.end <= GAP and end - held.start <= SPAN:
            held.slots.append(slot)
            held = held._replace(end=max(held.end, end))
            continue
        if held:
            yield held
        held = Span(pack, slot.offset, end, [slot])
    if held:
        yield held


def blocks(store: ReadableStore, wanted: Iterable[Span]) -> Iterator[tuple[str, Slot, PlainBlock | Unreadable]]:
    """The decoded blocks of the spans, in order; for one that cannot be read, what is wrong with it."""
    for span in wanted:
        try:
            (data,) = store.get_ranges(span.pack, [(span.start, span.end)])
        except NotFound:
            yield from ((span.pack, slot, Unreadable(span.pack, "it is not there")) for slot in span.slots)
            continue
        except DamageError as error:
            yield from ((span.pack, slot, Unreadable(span.pack, error.why)) for slot in span.slots)
            continue
        view = memoryview(data)
        for slot in span.slots:
            at = slot.offset - span.start
            try:
                yield span.pack, slot, read_block(view[at : at + slot.stored], span.pack)
            except DamageError as error:
                yield span.pack, slot, Unreadable(span.pack, f"{error.why} (block at {slot.offset})")


def extract(block: PlainBlock, place: Location, id_: ChunkId) -> memoryview:
    """A chunk of a decoded block, proved by its id. Unreadable when it is something else."""
    chunk = memoryview(block.plain)[place.offset : place.offset + place.length]
    if chunk_id(chunk) != id_:
        raise Unreadable(place.pack, f"a chunk in the block at {place.slot.offset} is not what its id says", (id_,))
    return chunk


def contents(store: ReadableStore, index: ChunkIndex, ids: Iterable[ChunkId]) -> Iterator[bytes]:
    """The chunks of these ids, in their order, proved; at most 16 MiB of them and one span in memory. Unreadable."""
    window: list[ChunkId] = []
    for id_ in ids:
        window.append(id_)
        if len(window) >= WINDOW_IDS:
            yield from _window(store, index, window)
            window = []
    yield from _window(store, index, window)


def _window(store: ReadableStore, index: ChunkIndex, ids: list[ChunkId]) -> Iterator[bytes]:
    places = index.places(ids)
    at = 0
    while at < len(ids):
        size, end = 0, at
        while end < len(ids) and (size < WINDOW_BYTES or end == at):
            place = places.get(ids[end])
            if place is None:
                raise Unreadable("", "the index lists no place for a chunk", (ids[end],))
            size += place.length
            end += 1
        some = ids[at:end]
        wanted = {id_: places[id_] for id_ in some}
        by_block: dict[tuple[str, Slot], list[ChunkId]] = {}
        for id_, place in wanted.items():
            by_block.setdefault((place.pack, place.slot), []).append(id_)
        plain: dict[ChunkId, bytes] = {}
        for pack, slot, block in blocks(store, spans(by_block)):
            needed = by_block[pack, slot]
            if isinstance(block, Unreadable):
                raise Unreadable(block.pack, block.why, tuple(needed))
            for id_ in needed:
                plain[id_] = bytes(extract(block, wanted[id_], id_))
        yield from (plain[id_] for id_ in some)
        at = end
