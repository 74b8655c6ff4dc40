"""Golden bytes: what version 1 of the format writes, and what it must always be able to read. docs/format.md says why.

golden.json has the bytes as hexadecimal. A difference here is not repaired by changing golden.json: it is a new format.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
from collections.abc import Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest
from blake3 import blake3
from mirrors import noise
from xxhash import xxh3_128_digest

from mirror import log
from mirror.chunking import AVERAGES, chunk_class, chunk_id, cut, cut_stream
from mirror.envelope import (
    FRAGMENT,
    NODE,
    PACK,
    RAW,
    SEGMENT,
    digest_of,
    header,
    read_header,
    seal,
    sealed_json,
    unseal,
    unsealed_json,
)
from mirror.errors import DamageError, UsageError
from mirror.index import StoredPack, decode_fragment, encode_fragments
from mirror.keys import INDEX, MANIFEST, ObjectName, record_key, segment_cut
from mirror.keys import PACK as PACKS
from mirror.making import new_info, read_info
from mirror.manifest import (
    ChangeLine,
    Entry,
    File,
    Folder,
    Page,
    Redirect,
    Ref,
    Symlink,
    cut_entries,
    cut_ids,
    cut_refs,
    decode_changes,
    decode_names,
    decode_node,
    decode_segment,
    encode,
    encode_changes,
    encode_names,
    encode_node,
    encode_segment,
)
from mirror.pack import PackBuilder, read_block, read_footer, scan_blocks
from mirror.snapshot import list_content
from mirror.store.memory import MemoryStore

GOLDEN: dict[str, str] = json.loads(Path(__file__).with_name("golden.json").read_text("ascii"))
PRINT = xxh3_128_digest(b"hello")
REF = Ref(b"a/b", bytes(range(32)), 7, 1000, 123_456_789_012)
TIME = 1_700_000_000_123_456_789


def golden(name: str) -> bytes:
    return bytes.fromhex(GOLDEN[name])


def ids(count: int) -> bytes:
    """Joined ids, the same for ever."""
    return b"".join(blake3(struct.pack("<Q", number)).digest() for number in range(count))


def short(values: object) -> str:
    """A digest of a list of numbers."""
    return hashlib.sha256(repr(values).encode()).hexdigest()[:32]


# Chunks


@pytest.mark.parametrize(
    ("class_", "size", "count", "first", "digest"),
    [
        (0, 4 << 20, 211, [18016, 37151, 22473], "bbc66ddfdd5cecb758d73ff7d24ef4bc"),
        (1, 16 << 20, 199, [111090, 67285, 86090], "1938f1f1007f7c909a8fe0ce343c8c58"),
        (2, 48 << 20, 72, [710598, 137620, 692950], "a955284ecb95f31a9a48eb71f1af5f49"),
    ],
)
def test_where_files_are_cut(class_: int, size: int, count: int, first: list[int], digest: str) -> None:
    data = noise(size, 7)
    lengths = [len(piece) for piece in cut(data, class_)]
    assert (len(lengths), lengths[:3], short(lengths)) == (count, first, digest)
    stream = io.BytesIO(data)
    assert [len(piece) for piece in cut_stream(lambda count: stream.read(min(count, 999_999)), class_)] == lengths


@pytest.mark.parametrize("class_", [0, 1, 2])
def test_the_smallest_files_are_one_chunk(class_: int) -> None:
    least = AVERAGES[class_] // 4
    assert [len(piece) for piece in cut(b"", class_)] == []
    assert [len(piece) for piece in cut(b"x", class_)] == [1]
    assert [len(piece) for piece in cut(noise(least), class_)] == [least]
    assert sum(len(piece) for piece in cut(noise(least + 1), class_)) == least + 1


@pytest.mark.parametrize(
    ("size", "before", "class_"),
    [
        ((8 << 20) - 1, None, 0),
        (8 << 20, None, 1),
        ((4 << 30) - 1, None, 1),
        (4 << 30, None, 2),
        ((32 << 20) - 1, 0, 0),
        (32 << 20, 0, 1),
        (4 << 30, 0, 2),
        ((16 << 30) - 1, 1, 1),
        (16 << 30, 1, 2),
        (2 << 20, 1, 1),
        ((2 << 20) - 1, 1, 0),
        (1 << 30, 2, 2),
        ((1 << 30) - 1, 2, 1),
        (0, 2, 0),
    ],
)
def test_when_a_path_changes_its_class(size: int, before: int | None, class_: int) -> None:
    assert chunk_class(size, before) == class_


def test_what_names_chunks_and_files() -> None:
    assert chunk_id(b"").hex() == "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"  # BLAKE3's own test vector
    assert xxh3_128_digest(b"").hex() == "99aa06d3014798d86001c324468d497f"  # `xxhsum -H2` of an empty file


# Manifest objects

ENTRIES: list[Entry] = [
    Folder(b""),
    Folder(b"dir/", TIME, 0o2755, 1000, 100, "www", "users", ((b"user.a", b"\x00\xff"), (b"user.b", b""))),
    File(b"empty", 0, xxh3_128_digest(b""), 0, b""),
    File(b"file-\xe9", 5, PRINT, 1, ids(2), None, TIME, 0o644, 0, 0, "root", "root", b"dir", ((b"user.x", b"y"),), "text/html",
         (("Cache-Control", "no-store"),)),
    File(b"long", 1 << 40, PRINT, 2, b"", REF, -1),
    Symlink(b"sym", b"../else\xff", TIME, 1000, 100, "www", "users"),
    Symlink(b"symbare", b""),
    Page(b"web", "https://example.org/", 404, 5, PRINT, 0, ids(1), None, TIME, '"etag"', "Fri, 20 Nov 2026 02:00:07 GMT",
         "text/html", (("A", "b"), ("A", "c")), ("https://example.org/x", "mailto:é@example.org"), bytes(range(16))),
    Page(b"web0", "https://example.org/0", 200, 0, PRINT, 0, b""),
    Redirect(b"web1", "https://example.org/1", 308, "/2", TIME),
    Redirect(b"web2", "https://example.org/2", 301, "/3"),
]  # fmt: skip
CHANGES = [
    ChangeLine("+", b"a"),
    ChangeLine("*", b"b\xff"),
    ChangeLine("-", b"c"),
    ChangeLine(">", b"d", b"old"),
    ChangeLine(".", b"e/"),
]
NAMES = [ObjectName(PACKS, bytes(range(32)), 17).key(), ObjectName(INDEX, bytes(32), 0).key()]


def packed() -> StoredPack:
    """A stored pack whose blocks are given, not compressed: their lengths are part of a fragment's bytes."""
    builder = PackBuilder()
    for number in range(5):
        builder.add(chunk_id(noise(5000, number)), noise(5000, number))
    pack = builder.finish()
    return StoredPack(ObjectName(PACKS, pack.digest, 3), len(pack.data), pack.blocks)


def written() -> dict[str, bytes]:
    """What this program writes now, of every kind whose bytes do not hang on zstd's version."""
    raw = PackBuilder()
    raw.add(chunk_id(noise(2000)), noise(2000))
    raw.add(chunk_id(noise(100, 1)), noise(100, 1))
    leaf = next(cut_ids(ids(65))).payload
    return {
        "segment": encode_segment([encode(entry) for entry in ENTRIES]),
        "node": encode_node(2, [REF, Ref(b"a/c", bytes(32), 0, 0, 0)]),
        "empty node": encode_node(1, []),
        "chunk list": leaf,
        "change list": encode_changes(CHANGES),
        "names": encode_names(NAMES),
        "fragment": next(encode_fragments([packed()])),
        "raw object": seal(NODE, encode_node(1, [])),
        "raw pack": bytes(raw.finish().data),
        "mirror.json": sealed_json(INFO),
        "record": sealed_json(RECORD),
        **{f"{name} of a tree": sealed_json(body) for name, body in OF_TREES.items()},
    }


INFO = new_info("packed", "www") | {"uuid": "0123456789abcdef" * 2, "created": "2026-11-20T02:00:07.123Z"}
RECORD: dict[str, Any] = {
    "format": 1,
    "number": 42,
    "kind": "snapshot",
    "uuid": "fedcba9876543210" * 2,
    "target": "0123456789abcdef" * 2,
    "previous": {"number": 41, "blake3": "00" * 32},
    "features": {"read": [], "write": [], "prune": []},
    "time": "2026-11-20T02:00:07.123Z",
    "prune": 17,
    "source": {"site": "www", "host": "web1", "path": "/srv/www/é"},
    "started": "2026-11-20T02:00:00.000Z",
    "finished": "2026-11-20T02:00:07.000Z",
    "tags": ["nightly"],
    "filters": [["exclude", "*.tmp"]],
    "manifest": log.ref_json(REF),
    "changes": None,
    "totals": {"entries": 1000, "bytes": 123_456_789_012, "added": 1, "changed": 2, "deleted": 3, "moved": 4, "described": 5},
    "complete": True,
    "problems": [],
    "problem_count": 0,
    "parents": [41],
    "live": [[1, 3], [40, 42]],
    "signatures": [],
}


OWNER = "89abcdef01234567" * 2
BARE = {name: RECORD[name] for name in ("format", "number", "uuid", "target", "previous", "features", "time", "prune")}
LIVE = {"live": RECORD["live"], "signatures": []}
OF_TREES: dict[str, dict[str, Any]] = {
    "snapshot": RECORD | {"deletes": log.ref_json(REF), "owner": OWNER},
    "publishing": RECORD | {"kind": "publishing", "expected": log.ref_json(REF), "owner": OWNER},
    "takeover": {**BARE, "kind": "takeover", "of": 41, "owner": OWNER, **LIVE},
    "done": {**BARE, "kind": "done", "snapshot": 41, "owner": OWNER, **LIVE},
}


@pytest.mark.parametrize("name", sorted(written()))
def test_what_is_written(name: str) -> None:
    assert written()[name].hex() == GOLDEN[name]


def test_what_is_read() -> None:
    assert decode_segment(golden("segment"), "x") == ENTRIES
    assert decode_node(golden("node"), "x") == (2, [REF, Ref(b"a/c", bytes(32), 0, 0, 0)])
    assert decode_node(golden("empty node"), "x") == (1, [])
    assert decode_changes(golden("change list"), "x") == CHANGES
    assert decode_names(golden("names"), "x") == NAMES
    assert golden("chunk list") == ids(65)
    fragment = decode_fragment(golden("fragment"), "x")
    assert [line.name for line in fragment.packs] == [packed().name]
    assert [id_ for id_, _ in fragment] == sorted(chunk_id(noise(5000, number)) for number in range(5))


def test_entries_of_a_later_version_may_be_longer_and_of_an_earlier_one_shorter() -> None:
    longer = b"\x9a\xa1d\xc4\x02d/" + b"\xc0" * 4 + b"\xa0\xa0\x90" + b"\xa5later"
    assert decode_segment(b"\xdd\0\0\0\x02\x92\xa1d\xc4\x02c/" + longer, "x") == [Folder(b"c/"), Folder(b"d/")]


def test_what_names_a_manifest_object() -> None:
    digest = digest_of(SEGMENT, golden("segment"))
    assert digest == blake3(b"S" + golden("segment")).digest()
    assert ObjectName(MANIFEST, digest, 17).key() == GOLDEN["segment's key"]
    assert unseal(seal(SEGMENT, golden("segment")), (SEGMENT,), digest, "x") == (SEGMENT, golden("segment"))


def test_a_compressed_object_stays_readable() -> None:
    payload = encode_segment([encode(Folder(b"%04d/" % number, TIME, 0o755)) for number in range(100)])
    stored = golden("zstd object")
    assert len(stored) < len(payload)
    assert unseal(stored, (SEGMENT,), digest_of(SEGMENT, payload), "x") == (SEGMENT, payload)


# Where trees are cut


def test_where_manifests_are_cut() -> None:
    entries = (File(b"d/%07d" % number, 1, PRINT, 0, ids(1), None, TIME, 0o644) for number in range(30_000))
    pieces = list(cut_entries(entries))
    counts = [piece.entries for piece in pieces]
    assert (len(counts), counts[:4], short(counts)) == (29, [694, 1200, 115, 12], "453f4a25b305c806b2c42c471ee7dc9f")
    assert [piece.first for piece in pieces[:2]] == [b"d/0000000", b"d/%07d" % counts[0]]
    refs = [Ref(piece.first, blake3(b"%d" % at).digest(), 0, piece.entries, piece.plain) for at, piece in enumerate(pieces * 60)]
    nodes = [piece.entries for piece in cut_refs(1, refs)]
    assert (len(nodes), short(nodes)) == (10, "c956646c4d7eeae909fa203cf4127b47")


def test_segments_and_nodes_have_a_most() -> None:
    uncut = [path for number in range(20_000) if _keeps(path := b"%d" % number)]
    counts = [piece.entries for piece in cut_entries(Symlink(path, b"") for path in sorted(uncut))]
    assert counts[:2] == [4096, 4096]
    sizes = [len(piece.payload) for piece in cut_entries(Symlink(path, bytes(300_000)) for path in sorted(uncut)[:10])]
    assert [size > 1 << 20 for size in sizes] == [True, True, False]
    refs = repeat(Ref(b"", b"\x01" * 32, 0, 1, 1), 2500)
    assert [piece.entries for piece in cut_refs(1, refs)] == [1024, 1024, 452]


def _keeps(path: bytes) -> bool:
    return not segment_cut(path, 1023)


def test_where_chunk_lists_are_cut() -> None:
    assert list_content(ids(64)) == (ids(64), None)
    chunks, leaf = list_content(ids(65))
    assert (chunks, leaf) == (b"", Ref(b"", blake3(b"L" + ids(65)).digest(), 0, 65, 0))
    counts = [piece.entries for piece in cut_ids(ids(30_000))]
    assert (len(counts), counts[:3], short(counts)) == (36, [333, 2421, 2962], "ed8c9b5e7c9dc17a90389230b513cf71")
    _, node = list_content(ids(30_000))
    assert node
    assert (node.entries, node.plain, node.digest.hex()) == (30_000, 0, GOLDEN["node of a long chunk list"])
    assert [piece.entries for piece in cut_ids(b"\x01" * 32 * 5000)] == [4096, 904]


# Packs


def zstd_chunks() -> list[bytes]:
    """Chunks that compress."""
    return [b"chunk %d of a page " % number * 200 for number in range(3)]


def test_a_stored_pack_stays_readable() -> None:
    data = golden("zstd pack")
    assert read_header(data, "x") == (PACK, RAW)
    first, second = read_footer(data, "x")
    assert (first.offset, first.plain, first.lengths) == (16, sum(map(len, zstd_chunks())), [len(c) for c in zstd_chunks()])
    assert (second.offset, second.plain, second.lengths) == (16 + first.stored, (1 << 20) + 1, [1 << 20, 1])
    assert first.stored < first.plain
    content = [bytes(chunk) for line in (first, second) for chunk in read_block(data[line.offset :], "x").chunks()]
    assert content == [*zstd_chunks(), bytes(1 << 20), b"x"]
    assert [at for at, _ in scan_blocks(data, "x")] == [first.offset, second.offset]


def test_the_shape_of_a_pack() -> None:
    data = golden("raw pack")
    magic, version, codec, zero, stored, plain, count, _, last = struct.unpack_from("<4sBBHIIIQI", data, 16)
    assert (magic, version, codec, zero, stored, plain, count, last) == (b"MBLK", 1, 0, 0, 2100, 2100, 2, 0)
    assert struct.unpack_from("<2I", data, 48) == (2000, 100)
    assert data[56:2156] == noise(2000) + noise(100, 1)
    assert data[2156:2173] == header(ord("F"), RAW) + b"\x91"  # type: ignore[arg-type]
    assert data[-4:] == b"MEND"
    assert struct.unpack_from("<I", data, len(data) - 16)[0] == len(data) - 16 - 2156


# What a newer mirror wrote


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"MIRRS\x01\x00\x00" + (0xABC).to_bytes(8, "little") + b"secret", "encrypted with key abc"),
        (b"MIRRS\x02\x00\x00" + bytes(8) + b"\x90", "format version 2"),
    ],
)
def test_a_newer_object_is_refused(data: bytes, why: str) -> None:
    with pytest.raises(UsageError, match=why) as caught:
        unseal(data, (SEGMENT,), None, "x")
    assert (caught.value.kind, caught.value.exit_code) == ("newer-format", 2)


@pytest.mark.parametrize("data", [b"MIRRS\x01\x02\x00" + bytes(8), b"MURRS\x01\x00\x00" + bytes(8), b"MIRRS\x01\x00", b""])
def test_an_impossible_object_is_damage(data: bytes) -> None:
    with pytest.raises(DamageError):
        unseal(data, (SEGMENT,), None, "x")


def test_an_object_of_another_kind_is_damage() -> None:
    with pytest.raises(DamageError, match="of kind 'N', not S"):
        unseal(golden("raw object"), (SEGMENT,), None, "x")


def stored(body: dict[str, Any]) -> MemoryStore:
    store = MemoryStore()
    store.create(record_key(42), sealed_json(body))
    return store


def test_unknown_members_of_a_record_are_kept() -> None:
    body = RECORD | {"later": {"a": [1, None, 1.5]}}
    record = log.read_record(stored(body), 42)
    assert record.body.pop("blake3")
    assert record.body == body
    assert list(record.live) == [1, 2, 3, 40, 41, 42]
    assert record.manifest == REF._replace(first=b"")


@pytest.mark.parametrize("change", [{"features": {"read": ["holes"]}}, {"format": 2}])
def test_a_record_that_needs_a_newer_reader_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="newer mirror") as caught:
        log.read_record(stored(RECORD | change), 42)
    assert caught.value.kind == "newer-format"


@pytest.mark.parametrize("name", sorted(OF_TREES))
def test_a_record_of_a_tree_is_read(name: str) -> None:
    store = MemoryStore()
    store.create(record_key(42), golden(f"{name} of a tree"))
    record = log.read_record(store, 42)
    assert record.kind == name
    assert record.body.pop("blake3")
    assert record.body == OF_TREES[name]


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "publishing", "manifest": None},
        {"kind": "publishing", "expected": {"blake3": "00"}},
        {"deletes": "all"},
        {"kind": "takeover"},
        {"kind": "takeover", "of": 42},
        {"kind": "takeover", "of": True},
    ],
)
def test_a_record_of_a_tree_that_cannot_be_is_damage(change: dict[str, Any]) -> None:
    with pytest.raises(DamageError):
        log.read_record(stored(RECORD | change), 42)


def test_features_that_are_not_for_readers_do_not_stop_them() -> None:
    body = RECORD | {"features": {"read": [], "write": ["holes"], "prune": ["holes"], "later": ["x"]}}
    assert log.read_record(stored(body), 42).number == 42


@pytest.mark.parametrize("change", [{"ids": "blake3-keyed"}, {"layout": "cloud"}, {"format": 2}, {"features": {"read": ["x"]}}])
def test_a_target_that_needs_a_newer_reader_is_refused(change: dict[str, Any]) -> None:
    store = MemoryStore()
    store.create("mirror.json", sealed_json(INFO | change))
    with pytest.raises(UsageError, match="newer mirror") as caught:
        read_info(store)
    assert caught.value.kind == "newer-format"


def test_mirror_json_is_read() -> None:
    store = MemoryStore()
    store.create("mirror.json", golden("mirror.json"))
    found = read_info(store)
    assert found
    assert found.pop("blake3")
    assert found == INFO


@pytest.mark.parametrize("name", ["mirror.json", "record"])
def test_json_carries_its_checksum(name: str) -> None:
    data = golden(name)
    assert unsealed_json(data, "x") == unsealed_json(data.removesuffix(b"\n"), "x")
    spoilt: Iterator[bytes] = chain(
        (data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :] for at in range(0, len(data) - 1, 7)),
        (data[:-3], b"", data + b"x", data[: len(data) // 2], data + data),
    )
    for each in spoilt:
        with pytest.raises(DamageError):
            unsealed_json(each, "x")


def test_tiny_chunks_fill_no_block_pack_or_fragment_beyond_what_may_be_read() -> None:
    """Files of ten bytes: without limits on their number, a block of 1 MiB makes a fragment that nobody may read."""
    builder = PackBuilder()
    added = 0
    while not builder.full:
        data = b"%010d" % added
        builder.add(chunk_id(data), data)
        added += 1
    pack = builder.finish()
    assert added == 131_072
    assert max(len(block.ids) for block in pack.blocks) == 16_384
    assert sum(len(line.lengths) for line in read_footer(bytes(pack.data), "x")) == added
    payloads = list(encode_fragments([StoredPack(ObjectName(PACKS, pack.digest, 0), len(pack.data), pack.blocks)]))
    fragments = [decode_fragment(unseal(seal(FRAGMENT, p), (FRAGMENT,), digest_of(FRAGMENT, p), "x")[1], "x") for p in payloads]
    assert sum(fragment.chunks for fragment in fragments) == added
    assert max(fragment.chunks for fragment in fragments) <= 65_536
    assert [line.name for fragment in fragments for line in fragment.packs] == [ObjectName(PACKS, pack.digest, 0)] * len(fragments)
