"""Index fragments: which chunk is where, sorted, for some packs. Pure.

A fragment is an object of kind "I", written after the packs that it lists, so that whatever it says is durable. Its payload
is msgpack: [packs, ids, places]; packs: [digest, epoch, size, [[offset, stored, plain] of each block]]; ids: 32 bytes each,
ascending; places: for each id four u32, little-endian: number of the pack in this fragment, number of the block in the pack,
offset in the block's plain bytes, length. At most 65,536 chunks, so that a fragment stays below 4 MiB.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec

from mirror.chunking import MAX_CHUNK, ChunkId
from mirror.envelope import PAYLOAD_MAX
from mirror.errors import DamageError
from mirror.keys import PACK, ObjectName
from mirror.pack import BLOCK_MAX, PACK_MAX, Block, Slot

FRAGMENT_CHUNKS = 65_536
_MOST = PAYLOAD_MAX - (64 << 10)  # bytes; a fragment of single-chunk blocks is full before it has so many chunks
_ROW, _SLOT, _LINE = 48, 16, 64  # bytes that a chunk, a block, a pack take at most
_PLACE = struct.Struct("<IIII")
ID = 32


class StoredPack(NamedTuple):
    """A durable pack: its name, size in bytes, and blocks with ids."""

    name: ObjectName
    size: int
    blocks: list[Block]


class PackLine(NamedTuple):
    """A pack as a fragment lists it."""

    digest: bytes
    epoch: int
    size: int
    blocks: list[Slot]

    @property
    def name(self) -> ObjectName:
        return ObjectName(PACK, self.digest, self.epoch)


class Place(NamedTuple):
    """Where a chunk is: pack and block by number within the fragment, offset and length in the block's plain bytes."""

    pack: int
    block: int
    offset: int
    length: int


class Fragment(msgspec.Struct, frozen=True):
    """A decoded fragment."""

    packs: list[PackLine]
    ids: bytes
    places: bytes

    def __iter__(self) -> Iterator[tuple[ChunkId, Place]]:
        for at, place in enumerate(_PLACE.iter_unpack(self.places)):
            yield ChunkId(self.ids[at * ID : at * ID + ID]), Place(*place)

    def rows(self) -> Iterator[tuple[tuple[int, ...], bytes, bytes]]:
        """The members of a place, the place as it is stored, and the id, of each chunk in order: for who asks at once of all, in a
        third of the time."""
        for at, place in enumerate(_PLACE.iter_unpack(self.places)):
            yield place, self.places[at * _PLACE.size : (at + 1) * _PLACE.size], self.ids[at * ID : at * ID + ID]

    @property
    def chunks(self) -> int:
        """How many chunks it lists."""
        return len(self.ids) // ID


class _Wire(NamedTuple):
    packs: list[PackLine]
    ids: bytes
    places: bytes


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(_Wire)


def stored_place(pack: int, block: int, offset: int, length: int) -> bytes:
    """A place as fragments have it."""
    return _PLACE.pack(pack, block, offset, length)


def encode_fragments(packs: Iterable[StoredPack]) -> Iterator[bytes]:
    """The payloads of the fragments that list these packs; a pack may be split between two of them."""
    lines: list[PackLine] = []
    rows: list[tuple[bytes, bytes]] = []
    size = 0  # of the lines
    for pack in packs:
        slots = [block.slot for block in pack.blocks]
        own = _LINE + _SLOT * len(slots)
        if rows and size + own + _ROW * len(rows) > _MOST:
            yield _fragment(lines, rows)
            rows, lines, size = [], [], 0
        lines.append(PackLine(pack.name.digest, pack.name.epoch, pack.size, slots))
        size += own
        for number, block in enumerate(pack.blocks):
            offset = 0
            count = len(rows) + len(block.ids)
            if rows and (count > FRAGMENT_CHUNKS or size + _ROW * count > _MOST):
                yield _fragment(lines, rows)
                rows, lines, size = [], [lines[-1]], own
            for id_, length in zip(block.ids, block.lengths, strict=True):
                rows.append((id_, _PLACE.pack(len(lines) - 1, number, offset, length)))
                offset += length
    if rows:
        yield _fragment(lines, rows)


def _fragment(lines: list[PackLine], rows: list[tuple[bytes, bytes]]) -> bytes:
    rows.sort()
    return _encoder.encode(_Wire(lines, b"".join(id_ for id_, _ in rows), b"".join(place for _, place in rows)))


def other_bytes(payload: bytes) -> bytes:
    """A fragment that says the same in other bytes: its first pack is listed once more, with no chunk. For one whose name is taken
    by an object that is damaged, since nothing is ever overwritten."""
    wire = _decoder.decode(payload)
    return _encoder.encode(wire._replace(packs=[*wire.packs, wire.packs[0]]))


def decode_fragment(payload: bytes, where: str) -> Fragment:
    """A fragment's content, checked: DamageError when a place points nowhere or exceeds the maxima."""
    fragment = open_fragment(payload, where)
    _check_places(fragment, where)
    return fragment


def open_fragment(payload: bytes, where: str) -> Fragment:
    """A fragment's content with its packs checked and its places not: for who asks for a few of its chunks and checks their places
    then. A hundredth of `decode_fragment`'s time. DamageError."""
    try:
        wire = _decoder.decode(payload)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise DamageError("cannot read the index fragment", where=where, why=str(error)) from error
    fragment = Fragment(wire.packs, wire.ids, wire.places)
    if len(wire.ids) % ID or len(wire.places) != fragment.chunks * _PLACE.size:
        raise DamageError("cannot use the index fragment", where=where, why="its columns differ in length")
    for pack in wire.packs:
        if len(pack.digest) != ID or pack.epoch < 0 or not 0 <= pack.size <= PACK_MAX:
            raise DamageError("cannot use the index fragment", where=where, why="it lists an impossible pack")
        if any(
            min(s) < 0 or s.plain > BLOCK_MAX or s.stored > 2 * BLOCK_MAX or s.offset + s.stored > pack.size for s in pack.blocks
        ):
            raise DamageError("cannot use the index fragment", where=where, why="it lists an impossible block")
    return fragment


def _check_places(fragment: Fragment, where: str) -> None:
    """DamageError when a place points nowhere or exceeds the maxima."""
    limits = [[slot.plain for slot in pack.blocks] for pack in fragment.packs]
    for pack_no, block, offset, length in _PLACE.iter_unpack(fragment.places):
        if pack_no >= len(limits) or block >= len(limits[pack_no]) or offset + length > limits[pack_no][block]:
            raise DamageError("cannot use the index fragment", where=where, why="it places a chunk outside its block")
        if not 0 < length <= MAX_CHUNK:
            raise DamageError("cannot use the index fragment", where=where, why=f"it lists a chunk of {length} bytes")
