"""Packs and index fragments: what goes in comes out, and no changed byte goes unnoticed."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from random import Random

import msgspec
import pytest
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mirror.chunking import ChunkId, chunk_id
from mirror.envelope import FRAGMENT, HEADER_SIZE, PAYLOAD_MAX, RAW, ZSTD, seal
from mirror.errors import DamageError, MirrorError
from mirror.index import FRAGMENT_CHUNKS, Fragment, PackLine, Place, StoredPack, decode_fragment, encode_fragments
from mirror.keys import PACK, ObjectName
from mirror.pack import (
    BLOCK_CHUNKS,
    BLOCK_MAX,
    BLOCK_PLAIN,
    HEAD_SIZE,
    Block,
    Pack,
    PackBuilder,
    Slot,
    read_block,
    read_footer,
    scan_blocks,
)

calm = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # other work may be going on here
ID = 32


def packed(chunks: Sequence[bytes], level: int = 3) -> Pack:
    builder = PackBuilder(level)
    assert builder.empty
    for data in chunks:
        builder.add(chunk_id(data), data)
    return builder.finish()


def unpacked(pack: Pack) -> list[bytes]:
    return [bytes(c) for block in pack.blocks for c in read_block(bytes(pack.data[block.slot.offset :]), "x").chunks()]


def mixed(count: int, seed: int = 0) -> list[bytes]:
    random = Random(seed)
    return [random.randbytes(random.choice((1, 50, 20_000, 300_000))) + b"text " * random.choice((0, 9_000)) for _ in range(count)]


SMALL = packed([b"one", b"two " * 100, bytes(range(256))])
SEVERAL = mixed(20)
LARGE = packed(SEVERAL)


@calm
@given(st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=30), st.sampled_from((1, 3, 19)))
def test_chunks_come_back_in_order(chunks: list[bytes], level: int) -> None:
    pack = packed(chunks, level)
    assert unpacked(pack) == chunks
    assert pack.digest == blake3(pack.data).digest()
    assert [id_ for block in pack.blocks for id_ in block.ids] == [chunk_id(data) for data in chunks]


def test_blocks_are_closed_at_a_mebibyte_or_many_chunks() -> None:
    assert len(LARGE.blocks) > 1
    assert unpacked(LARGE) == SEVERAL
    for block in LARGE.blocks[:-1]:
        assert BLOCK_PLAIN <= block.slot.plain < BLOCK_PLAIN + 400_000
        assert sum(block.lengths[:-1]) < BLOCK_PLAIN
    tiny = packed([b"%d" % n for n in range(BLOCK_CHUNKS + 5)])
    assert [len(block.ids) for block in tiny.blocks] == [BLOCK_CHUNKS, 5]


def test_what_does_not_shrink_is_stored_raw() -> None:
    noise, text = packed([Random(0).randbytes(5000)]), packed([b"text " * 1000])
    assert noise.data[noise.blocks[0].slot.offset + 5] == RAW
    assert noise.blocks[0].slot.stored == HEAD_SIZE + 4 + 5000
    assert text.data[text.blocks[0].slot.offset + 5] == ZSTD
    assert text.blocks[0].slot.stored < 200


def test_a_builder_says_how_full_it_is() -> None:
    builder = PackBuilder()
    assert (builder.empty, builder.stored) == (True, HEADER_SIZE)
    builder.add(chunk_id(b"x"), b"x")
    assert (builder.empty, builder.stored) == (False, HEADER_SIZE)
    data = Random(1).randbytes(BLOCK_PLAIN)
    builder.add(chunk_id(data), data)
    assert builder.stored > BLOCK_PLAIN


def test_a_chunk_whose_id_is_not_its_own_is_never_stored() -> None:
    builder = PackBuilder()
    builder.add(chunk_id(b"right"), b"wrong")
    with pytest.raises(MirrorError, match="does not decode to what went in") as caught:
        builder.finish()
    assert caught.value.kind == "bad-memory"


def test_keyed_ids_are_proved_with_their_key() -> None:
    builder = PackBuilder(key=bytes(32))
    builder.add(chunk_id(b"x", bytes(32)), b"x")
    assert len(builder.finish().blocks) == 1
    builder = PackBuilder(key=bytes(32))
    builder.add(chunk_id(b"x"), b"x")
    with pytest.raises(MirrorError):
        builder.finish()


# -- damage -----------------------------------------------------------------------------------------------------------


def areas(pack: Pack) -> dict[str, range]:
    """Where the parts of a pack are."""
    size = len(pack.data)
    (length,) = struct.unpack_from("<I", pack.data, size - 16)
    block = pack.blocks[0]
    head = block.slot.offset
    table = head + HEAD_SIZE
    body = table + 4 * len(block.lengths)
    return {
        "head": range(head, table),
        "lengths": range(table, body),
        "body": range(body, head + block.slot.stored),
        "footer": range(size - 16 - length, size - 16),
        "trailer": range(size - 16, size),
    }


@pytest.mark.parametrize("part", ["head", "lengths", "body", "footer", "trailer"])
def test_no_changed_byte_goes_unnoticed(part: str) -> None:
    """Every byte of the part, with every single bit turned."""
    for at in areas(SMALL)[part]:
        for bit in range(8):
            data = bytearray(SMALL.data)
            data[at] ^= 1 << bit
            assert blake3(data).digest() != SMALL.digest
            with pytest.raises(DamageError):
                _read_all(bytes(data), footer=part in ("footer", "trailer"))


def _read_all(data: bytes, footer: bool) -> None:
    if footer:
        read_footer(data, "x")
    else:
        read_block(data[SMALL.blocks[0].slot.offset :], "x")


def test_a_whole_pack_says_what_is_in_it() -> None:
    lines = read_footer(bytes(LARGE.data), "x")
    assert [(line.offset, line.stored, line.plain) for line in lines] == [block.slot for block in LARGE.blocks]
    assert [line.lengths for line in lines] == [block.lengths for block in LARGE.blocks]


@pytest.mark.parametrize("size", [0, 1, 15, 16, 31, 32, 60, len(SMALL.data) - 1])
def test_a_pack_cut_short_is_damage(size: int) -> None:
    with pytest.raises(DamageError):
        read_footer(bytes(SMALL.data[:size]), "x")


@calm
@given(st.binary(max_size=200))
def test_nothing_but_damage_comes_of_noise(data: bytes) -> None:
    with pytest.raises(DamageError):
        read_block(data, "x")
    with pytest.raises(DamageError):
        read_footer(data, "x")
    with pytest.raises(DamageError):
        read_block(b"MBLK" + data, "x")


@pytest.mark.parametrize(
    ("stored", "plain", "count"),
    [(0xFFFFFFFF, 1, 1), (1, 0xFFFFFFFF, 1), (1, 1, 0xFFFFFFFF), (BLOCK_MAX + 1, 1, 1), (5, 5, 1 << 21)],
)
def test_a_head_that_claims_the_impossible_costs_no_memory(stored: int, plain: int, count: int) -> None:
    head = struct.pack("<4sBBHIIIQI", b"MBLK", 1, RAW, 0, stored, plain, count, 0, 0)
    with pytest.raises(DamageError, match="impossible sizes"):
        read_block(head + bytes(1000), "x")


def test_undamaged_blocks_are_found_without_a_footer() -> None:
    data = LARGE.data[: areas(LARGE)["footer"].start]
    found = list(scan_blocks(bytes(data), "x"))
    assert [at for at, _ in found] == [block.slot.offset for block in LARGE.blocks]
    chunks = [bytes(c) for _, block in found for c in block.chunks()]  # type: ignore[union-attr]
    assert chunks == SEVERAL


@pytest.mark.parametrize("where", ["magic", "sizes", "body"])
def test_one_damaged_block_hides_no_other(where: str) -> None:
    data = bytearray(LARGE.data)
    slot = LARGE.blocks[1].slot
    at = slot.offset + {"magic": 0, "sizes": 9, "body": slot.stored - 1}[where]
    data[at] ^= 0xFF
    found = list(scan_blocks(bytes(data), "x"))
    good = {at: block for at, block in found if not isinstance(block, DamageError)}
    assert set(good) == {block.slot.offset for block in LARGE.blocks} - {slot.offset}
    bad = [at for at, block in found if isinstance(block, DamageError)]
    assert bad == ([] if where == "magic" else [slot.offset])


def test_a_magic_inside_content_is_no_block() -> None:
    chunks = [b"MBLK" * 1000 + Random(3).randbytes(3000), Random(4).randbytes(BLOCK_PLAIN)]
    pack = packed(chunks)
    assert [at for at, block in scan_blocks(bytes(pack.data), "x") if not isinstance(block, DamageError)] == [
        block.slot.offset for block in pack.blocks
    ]
    pack.data[HEADER_SIZE + 6] ^= 1
    found = [block for _, block in scan_blocks(bytes(pack.data), "x") if not isinstance(block, DamageError)]
    assert len(found) == len(pack.blocks) - 1


# -- index fragments --------------------------------------------------------------------------------------------------


def claimed(number: int, blocks: int, chunks: int, length: int = 100) -> StoredPack:
    """A pack as its worker tells of it, with made-up ids."""
    made, offset, count = [], HEADER_SIZE, 0
    for _ in range(blocks):
        ids = [ChunkId(blake3(f"{number} {count + n}".encode()).digest()) for n in range(chunks)]
        made.append(Block(Slot(offset, 70, length * chunks), ids, [length] * chunks))
        offset, count = offset + 70, count + chunks
    return StoredPack(ObjectName(PACK, blake3(b"%d" % number).digest(), number), offset, made)


def listed(packs: Sequence[StoredPack]) -> tuple[list[Fragment], dict[bytes, tuple[str, int, int, int]]]:
    """The fragments of these packs, and every chunk's place by id."""
    fragments, places = [], {}
    for payload in encode_fragments(packs):
        assert len(payload) <= PAYLOAD_MAX
        fragment = decode_fragment(payload, "x")
        fragments.append(fragment)
        for id_, place in fragment:
            places[id_] = (fragment.packs[place.pack].name.key(), place.block, place.offset, place.length)
    return fragments, places


def expected(packs: Sequence[StoredPack]) -> Iterator[tuple[bytes, tuple[str, int, int, int]]]:
    for pack in packs:
        for number, block in enumerate(pack.blocks):
            offset = 0
            for id_, length in zip(block.ids, block.lengths, strict=True):
                yield id_, (pack.name.key(), number, offset, length)
                offset += length


@calm
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 9)), max_size=6))
def test_a_fragment_lists_every_chunk_of_its_packs(shapes: list[tuple[int, int]]) -> None:
    packs = [claimed(number, *shape) for number, shape in enumerate(shapes)]
    fragments, places = listed(packs)
    assert places == dict(expected(packs))
    for fragment in fragments:
        ids = [id_ for id_, _ in fragment]
        assert ids == sorted(ids)
        assert fragment.chunks == len(ids)


def test_many_chunks_go_into_several_fragments() -> None:
    packs = [claimed(number, 30, 1000) for number in range(3)]
    fragments, places = listed(packs)
    assert places == dict(expected(packs))
    assert len(fragments) == 2
    assert all(fragment.chunks <= FRAGMENT_CHUNKS for fragment in fragments)


def test_blocks_of_one_chunk_each_fit_what_may_be_read() -> None:
    """Big chunks that compress well: as many blocks as chunks, and the blocks take their room too."""
    packs = [claimed(number, 34_000, 1, 600_000) for number in range(2)]
    fragments, places = listed(packs)
    assert len(places) == 68_000
    assert places == dict(expected(packs))
    assert len(fragments) == 2


WIRE = msgspec.msgpack.Encoder()


def raw(packs: list[PackLine], ids: bytes, places: list[Place]) -> bytes:
    return WIRE.encode((packs, ids, b"".join(struct.pack("<IIII", *place) for place in places)))


GOOD = PackLine(bytes(32), 0, 100, [Slot(16, 50, 80)])


@pytest.mark.parametrize(
    "payload",
    [
        b"", b"\x93", WIRE.encode([1, 2, 3]), WIRE.encode((("x",), b"", b"")),
        raw([GOOD], bytes(31), [Place(0, 0, 0, 80)]), raw([GOOD], bytes(64), [Place(0, 0, 0, 80)]),
        raw([GOOD], bytes(32), [Place(1, 0, 0, 80)]), raw([GOOD], bytes(32), [Place(0, 1, 0, 80)]),
        raw([GOOD], bytes(32), [Place(0, 0, 1, 80)]), raw([GOOD], bytes(32), [Place(0, 0, 0xFFFFFFFF, 0xFFFFFFFF)]),
        raw([GOOD._replace(digest=bytes(31))], b"", []), raw([GOOD._replace(epoch=-1)], b"", []),
        raw([GOOD._replace(size=1 << 40)], b"", []), raw([GOOD._replace(size=-5, blocks=[Slot(-90, 50, 80)])], b"", []),
        raw([GOOD._replace(blocks=[Slot(-1, 50, 80)])], b"", []), raw([GOOD._replace(blocks=[Slot(16, -50, 80)])], b"", []),
        raw([GOOD._replace(blocks=[Slot(16, 50, -80)])], b"", []), raw([GOOD._replace(blocks=[Slot(51, 50, 80)])], b"", []),
        raw([GOOD._replace(blocks=[Slot(16, 50, BLOCK_MAX + 1)])], b"", []),
    ],
)  # fmt: skip
def test_a_fragment_that_claims_the_impossible_is_damage(payload: bytes) -> None:
    with pytest.raises(DamageError):
        decode_fragment(payload, "x")


def test_the_example_that_the_impossible_ones_come_from_is_fine() -> None:
    fragment = decode_fragment(raw([GOOD], bytes(32), [Place(0, 0, 0, 80)]), "x")
    assert list(fragment) == [(ChunkId(bytes(ID)), Place(0, 0, 0, 80))]
    assert seal(FRAGMENT, b"")
