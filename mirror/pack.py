"""Packs: chunks of neighbouring paths compressed together in blocks, blocks in a file that describes itself. Pure.

    pack    header "P" · block · block · … · footer · trailer
    block   32-byte head · chunk lengths (u32 each) · stored bytes (raw or one zstd frame)
    footer  an object of kind "F": for each block its offset, stored and plain length, checksum and chunk lengths
    trailer footer's length u32 · XXH3-64 of the footer · "MEND"

A block's head repeats what the footer says of it, with a magic, so a pack with a damaged footer can be read from the front.
Chunk ids are not in the pack: they are recomputed (`read_block` gives plain chunks, their BLAKE3 is the id), so the index can be
rebuilt from packs alone. Every block is decoded again and every id recomputed before the pack is handed on: a
compressor or a memory that corrupts is noticed at night one (restic#4523).

    >>> builder = PackBuilder()
    >>> builder.add(chunk_id(b"hello"), b"hello")
    >>> pack = builder.finish()
    >>> [bytes(c) for c in read_block(pack.data[slot.offset:], "x").chunks()] if (slot := pack.blocks[0].slot) else None
    [b'hello']
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import accumulate
from typing import NamedTuple

import msgspec
import zstandard
from blake3 import blake3
from xxhash import xxh3_64_intdigest

from mirror.chunking import ChunkId, chunk_id
from mirror.envelope import FOOTER, HEADER_SIZE, PACK, RAW, ZSTD, expand, header, seal, unseal
from mirror.errors import DamageError, MirrorError

BLOCK_PLAIN = 1 << 20  # a block is closed at this many plain bytes …
BLOCK_MAX = 8 << 20  # … and none may hold more than this
BLOCK_CHUNKS = 16_384  # … or this many chunks, so that an index fragment can list a block whole
PACK_CHUNKS = 131_072  # a pack of tiny files is closed at so many: its footer lists them all
PACK_STORED = 24 << 20  # a pack is closed at this many stored bytes: "up to about 32 MiB", two in flight fit 120 MB a worker
PACK_MAX = 64 << 20
_HEAD = struct.Struct("<4sBBHIIIQI")  # magic, version, codec, 0, stored, plain, chunks, XXH3-64, 0
HEAD_SIZE = _HEAD.size
_TRAILER = struct.Struct("<IQ4s")
BLOCK_MAGIC, END_MAGIC = b"MBLK", b"MEND"
_BLOCK_CHUNKS_MAX = 1 << 20


class Slot(NamedTuple):
    """Where a block is in its pack: offset, bytes there (head and lengths included), plain bytes."""

    offset: int
    stored: int
    plain: int


class Block(NamedTuple):
    """A block of a finished pack: its place and the ids and lengths of its chunks, in order."""

    slot: Slot
    ids: list[ChunkId]
    lengths: list[int]


class Pack(NamedTuple):
    """A finished pack: bytes to store, the BLAKE3 that names it, its blocks."""

    data: bytearray
    digest: bytes
    blocks: list[Block]


class FooterLine(NamedTuple):
    """What the footer says of a block. checksum: XXH3-64 of lengths and stored bytes."""

    offset: int
    stored: int
    plain: int
    checksum: int
    lengths: list[int]


_footer_decoder = msgspec.msgpack.Decoder(list[FooterLine])
_footer_encoder = msgspec.msgpack.Encoder()


class PlainBlock(NamedTuple):
    """A decoded block: its plain bytes and where its chunks end. Checked by its checksum; ids are the reader's to check."""

    plain: bytes
    lengths: tuple[int, ...]

    def chunks(self) -> Iterator[memoryview]:
        """The chunks, in order."""
        view = memoryview(self.plain)
        for end, length in zip(accumulate(self.lengths), self.lengths, strict=True):
            yield view[end - length : end]


class PackBuilder:
    """Collects chunks into one pack. Not shared between threads. `stored` grows as blocks are closed."""

    def __init__(self, level: int = 3, key: bytes | None = None) -> None:
        self._compressor = zstandard.ZstdCompressor(level=level)
        self._key = key
        self._data = bytearray(header(PACK, RAW))
        self._lines: list[FooterLine] = []
        self._blocks: list[Block] = []
        self._parts: list[bytes | memoryview] = []
        self._ids: list[ChunkId] = []
        self._plain = 0
        self._chunks = 0

    @property
    def stored(self) -> int:
        """Bytes of the blocks closed so far."""
        return len(self._data)

    @property
    def full(self) -> bool:
        """Whether it is to be closed."""
        return len(self._data) >= PACK_STORED or self._chunks >= PACK_CHUNKS

    @property
    def empty(self) -> bool:
        return not self._blocks and not self._parts

    def add(self, id_: ChunkId, data: bytes | memoryview) -> None:
        """Add a chunk; closes the block when it is full."""
        self._parts.append(data)
        self._ids.append(id_)
        self._plain += len(data)
        self._chunks += 1
        if self._plain >= BLOCK_PLAIN or len(self._ids) >= BLOCK_CHUNKS:
            self._close_block()

    def _close_block(self) -> None:
        if not self._parts:
            return
        plain = b"".join(self._parts)
        lengths = [len(part) for part in self._parts]
        table = struct.pack(f"<{len(lengths)}I", *lengths)
        body, codec = self._compressor.compress(plain), ZSTD
        if len(body) >= len(plain):
            body, codec = plain, RAW
        checksum = xxh3_64_intdigest(table + body)
        stored = HEAD_SIZE + len(table) + len(body)
        slot = Slot(len(self._data), stored, len(plain))
        self._data += _HEAD.pack(BLOCK_MAGIC, 1, codec, 0, len(body), len(plain), len(lengths), checksum, 0)
        self._data += table
        self._data += body
        block = Block(slot, self._ids, lengths)
        self._prove(block)
        self._blocks.append(block)
        self._lines.append(FooterLine(slot.offset, stored, len(plain), checksum, lengths))
        self._parts, self._ids, self._plain = [], [], 0

    def _prove(self, block: Block) -> None:
        view = memoryview(self._data)[block.slot.offset :]
        for id_, chunk in zip(block.ids, read_block(view, "the pack being made").chunks(), strict=True):
            if chunk_id(chunk, self._key) != id_:
                raise MirrorError(
                    "cannot store a block",
                    why="it does not decode to what went in",
                    hint="suspect this machine's memory or its zstd library",
                    kind="bad-memory",
                )
        view.release()

    def finish(self) -> Pack:
        """Close the last block and write footer and trailer."""
        self._close_block()
        footer = seal(FOOTER, _footer_encoder.encode(self._lines))
        self._data += footer
        self._data += _TRAILER.pack(len(footer), xxh3_64_intdigest(footer), END_MAGIC)
        return Pack(self._data, blake3(self._data).digest(), self._blocks)


class BlockHead(NamedTuple):
    """What a block's head claims, not yet believed. span: bytes of the whole block, the head included."""

    span: int
    plain: int
    chunks: int
    checksum: int


def read_block_head(data: bytes, where: str) -> BlockHead:
    """The head that `data` begins with. DamageError when it is none, or claims what no block has."""
    if len(data) < HEAD_SIZE:
        raise DamageError("cannot read a block", where=where, why="it is cut short")
    magic, _, _, _, stored, plain, count, checksum, _ = _HEAD.unpack_from(data)
    if magic != BLOCK_MAGIC:
        raise DamageError("cannot read a block", where=where, why="it does not begin with MBLK")
    if plain > BLOCK_MAX or count > _BLOCK_CHUNKS_MAX or stored > BLOCK_MAX:
        raise DamageError("cannot read a block", where=where, why="its head claims impossible sizes")
    return BlockHead(HEAD_SIZE + 4 * count + stored, plain, count, checksum)


def read_block(data: bytes | memoryview, where: str) -> PlainBlock:
    """The block that `data` begins with (more may follow). DamageError when head, checksum, codec or lengths do not fit."""
    if len(data) < HEAD_SIZE:
        raise DamageError("cannot read a block", where=where, why="it is cut short")
    magic, version, codec, zero, stored, plain, count, checksum, nought = _HEAD.unpack_from(data)
    if magic != BLOCK_MAGIC or version != 1:
        raise DamageError("cannot read a block", where=where, why="it does not begin with MBLK")
    if codec not in (RAW, ZSTD) or zero or nought:
        raise DamageError("cannot read a block", where=where, why="its head says what no version says")
    end = HEAD_SIZE + 4 * count + stored
    if plain > BLOCK_MAX or count > _BLOCK_CHUNKS_MAX or stored > BLOCK_MAX or len(data) < end:
        raise DamageError("cannot read a block", where=where, why="its head claims impossible sizes")
    body = memoryview(data)[HEAD_SIZE:end]
    if xxh3_64_intdigest(body) != checksum:
        raise DamageError("cannot use a block", where=where, why="its checksum does not match")
    lengths = struct.unpack_from(f"<{count}I", body)
    content = expand(body[4 * count :], codec, BLOCK_MAX, where)
    if len(content) != plain or sum(lengths) != plain:
        raise DamageError("cannot use a block", where=where, why="its lengths do not add up")
    return PlainBlock(content, lengths)


def footer_payload(lines: list[FooterLine]) -> bytes:
    """What the footer of a pack with these blocks says, as every writer writes it."""
    return _footer_encoder.encode(lines)


def read_footer_payload(data: bytes, where: str) -> tuple[bytes, int]:
    """(plain payload of the footer, bytes of footer and trailer) at the end of a pack; `data` may be its last part alone.
    DamageError when trailer or checksum do not fit."""
    if len(data) < HEADER_SIZE + _TRAILER.size:
        raise DamageError("cannot read the pack", where=where, why=f"it has only {len(data)} bytes")
    length, checksum, magic = _TRAILER.unpack_from(data, len(data) - _TRAILER.size)
    start = len(data) - _TRAILER.size - length
    if magic != END_MAGIC or start < HEADER_SIZE:
        raise DamageError("cannot read the pack", where=where, why="its trailer is damaged")
    footer = data[start : start + length]
    if xxh3_64_intdigest(footer) != checksum:
        raise DamageError("cannot read the pack", where=where, why="its footer is damaged")
    return unseal(footer, (FOOTER,), None, where)[1], length + _TRAILER.size


def read_footer(data: bytes, where: str) -> list[FooterLine]:
    """The footer of a whole pack. DamageError when trailer, checksum or lines do not fit."""
    payload, _ = read_footer_payload(data, where)
    try:
        return _footer_decoder.decode(payload)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise DamageError("cannot read the pack", where=where, why=f"its footer is malformed ({error})") from error


def scan_blocks(data: bytes, where: str) -> Iterator[tuple[int, PlainBlock | DamageError]]:
    """Every block of a pack without its footer, from the front: (offset, block or what is wrong with it); after damage it
    goes on at the next magic."""
    at = HEADER_SIZE
    while (at := data.find(BLOCK_MAGIC, at)) >= 0 and at + HEAD_SIZE <= len(data):
        try:
            block = read_block(memoryview(data)[at:], where)
        except DamageError as error:
            yield at, error
            at += 1
            continue
        yield at, block
        stored, count = _HEAD.unpack_from(data, at)[4], len(block.lengths)
        at += HEAD_SIZE + 4 * count + stored
