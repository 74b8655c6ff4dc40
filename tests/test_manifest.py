"""Entries, the objects they are written in, and where those are cut: round trips, determinism, locality, hostile payloads."""

from __future__ import annotations

from random import Random

import msgspec
import pytest
from blake3 import blake3
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mirror.envelope import PAYLOAD_MAX
from mirror.errors import DamageError
from mirror.keys import path_fault, segment_cut
from mirror.manifest import (
    LEAF_IDS,
    NODE_REFS,
    SEGMENT_BYTES,
    SEGMENT_ENTRIES,
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
    decode_entry,
    decode_names,
    decode_node,
    decode_segment,
    encode,
    encode_changes,
    encode_names,
    encode_node,
    encode_segment,
    split_ids,
)

calm = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # other work may be going on here

parts = st.binary(min_size=1, max_size=6).map(lambda part: part.replace(b"/", b"_").replace(b"\0", b"0").replace(b".", b"d"))
paths = st.lists(parts, min_size=1, max_size=4).map(b"/".join)
times = st.none() | st.integers(-(2**63), 2**63 - 1)
owners = st.none() | st.integers(0, 2**32 - 1)
words = st.text(max_size=4)
ids = st.integers(0, 5).map(lambda count: bytes(range(32)) * count)
described = st.tuples(times, st.none() | st.integers(0, 0o7777), owners, owners, words, words)


@st.composite
def entries(draw: st.DrawFn) -> Entry:
    path, kind = draw(paths), draw(st.sampled_from("dlfpr"))
    if kind == "d":
        return Folder(path + b"/", *draw(described))
    if kind == "l":
        return Symlink(path, draw(st.binary(max_size=9)), draw(times), draw(owners), draw(owners), draw(words), draw(words))
    size, class_, chunks = draw(st.integers(0, 2**62)), draw(st.integers(0, 2)), draw(ids)
    more = Ref(b"", bytes(32), 3, 65, 0) if draw(st.booleans()) else None
    if kind == "f":
        return File(path, size, bytes(16), class_, chunks, more, *draw(described), link=draw(st.just(b"") | paths))
    if kind == "p":
        return Page(path, "http://h/", 200, size, bytes(16), class_, chunks, more, draw(times), links=(draw(words),))
    return Redirect(path, "http://h/a", 301, draw(words), draw(times))


def site(count: int, seed: int = 0) -> list[Entry]:
    """Entries in order, as many as that."""
    random = Random(seed)
    names = {b"%02x/%08x" % (random.randrange(40), random.getrandbits(32)) for _ in range(count)}
    return [File(name, len(name), bytes(16), 0, bytes(32)) for name in sorted(names)]


# -- segments ---------------------------------------------------------------------------------------------------------


@settings(calm, max_examples=40)
@given(st.dictionaries(paths, entries(), max_size=5))
def test_a_segment_comes_back(found: dict[bytes, Entry]) -> None:
    unique = {entry.path: entry for entry in found.values()}
    ordered = [unique[path] for path in sorted(unique)]
    assert decode_segment(encode_segment([encode(entry) for entry in ordered]), "x") == ordered
    assert [decode_entry(encode(entry)) for entry in ordered] == ordered
    assert [entry for piece in cut_entries(ordered) for entry in decode_segment(piece.payload, "x")] == ordered


FILE = File(b"a", 0, bytes(16), 0, b"")


@pytest.mark.parametrize(
    "bad",
    [
        [FILE, FILE],
        [msgspec.structs.replace(FILE, path=b"b"), FILE],
        *([msgspec.structs.replace(FILE, path=path)] for path in (
            b"..", b".", b"../x", b"x/..", b"x/../y", b"x/./y", b"./x", b"/x", b"x//y", b"x\0", b"x/", b"", b"x" * 65_537,
        )),
        *([Folder(path)] for path in (b"../", b"./", b"x/../", b"/", b"//", b"x//", b"x")),
        [Symlink(b"l/", b"t")], [Redirect(b"r/", "u", 301, "l")],
        [msgspec.structs.replace(FILE, chunks=bytes(31))], [msgspec.structs.replace(FILE, class_=3)],
        [msgspec.structs.replace(FILE, class_=-1)], [msgspec.structs.replace(FILE, size=-1)],
        [msgspec.structs.replace(FILE, fingerprint=bytes(15))], [msgspec.structs.replace(FILE, link=b"../x")],
        [msgspec.structs.replace(FILE, link=b"/etc/passwd")],
    ],
    ids=str,
)  # fmt: skip
def test_a_segment_with_what_may_not_be_is_damage(bad: list[Entry]) -> None:
    with pytest.raises(DamageError):
        decode_segment(encode_segment([encode(entry) for entry in bad]), "x")


@calm
@given(st.binary(max_size=60))
def test_nothing_but_damage_comes_of_noise(data: bytes) -> None:
    for decoder in (decode_segment, decode_node, decode_changes, decode_names):
        try:
            decoder(data, "x")
        except DamageError:
            pass


@calm
@given(st.binary(max_size=12))
def test_a_path_is_allowed_in_a_segment_just_when_it_has_no_fault(path: bytes) -> None:
    entry = Folder(path) if path[-1:] in (b"/", b"") else msgspec.structs.replace(FILE, path=path)
    payload = encode_segment([encode(entry)])
    if path_fault(path):
        with pytest.raises(DamageError):
            decode_segment(payload, "x")
    else:
        assert decode_segment(payload, "x") == [entry]


# -- cuts -------------------------------------------------------------------------------------------------------------


def test_cuts_are_the_same_every_time_and_lose_nothing() -> None:
    all_ = site(20_000)
    pieces = list(cut_entries(all_))
    assert pieces == list(cut_entries(iter(all_)))
    assert 10 < len(pieces) < 40
    found = [entry for piece in pieces for entry in decode_segment(piece.payload, "x")]
    assert found == all_
    for piece in pieces:
        inside = decode_segment(piece.payload, "x")
        assert (piece.first, piece.entries, piece.plain) == (inside[0].path, len(inside), sum(e.size for e in inside))  # type: ignore[union-attr]


@settings(calm, max_examples=15)
@given(st.integers(0, 9_999), st.sampled_from(("insert", "delete", "change")))
@example(0, "delete")
def test_one_change_makes_few_segments_new(at: int, what: str) -> None:
    all_ = site(10_000)
    before = {piece.payload for piece in cut_entries(all_)}
    other = list(all_)
    if what == "delete":
        del other[at]
    elif what == "change":
        other[at] = msgspec.structs.replace(other[at], fingerprint=b"\1" * 16)  # type: ignore[type-var]
    else:
        other.insert(at + 1, msgspec.structs.replace(all_[at], path=all_[at].path + b"!"))  # type: ignore[type-var]
    after = [piece.payload for piece in cut_entries(other)]
    fresh = [payload for payload in after if payload not in before]
    gone = before - set(after)
    assert len(fresh) <= 2
    assert fresh or gone, "the only entry of a segment may go, and its segment with it"
    assert len(gone) <= 2


def test_a_stretch_without_cuts_ends_at_4096_entries_or_a_mebibyte() -> None:
    plain = [entry for entry in site(40_000) if not segment_cut(entry.path, 1023)][:10_000]
    assert [piece.entries for piece in cut_entries(plain)] == [SEGMENT_ENTRIES, SEGMENT_ENTRIES, 10_000 - 2 * SEGMENT_ENTRIES]
    wide = [msgspec.structs.replace(entry, chunks=bytes(32 * 64)) for entry in plain[:2500]]  # type: ignore[type-var]
    pieces = list(cut_entries(wide))
    assert len(pieces) == 5
    assert all(len(piece.payload) >= SEGMENT_BYTES for piece in pieces[:-1])
    assert all(len(piece.payload) < SEGMENT_BYTES + 4096 for piece in pieces)


def refs(count: int, first: bytes = b"%08d") -> list[Ref]:
    return [Ref(first % n, blake3(b"%d" % n).digest(), n % 7, 10, 1000) for n in range(count)]


@pytest.mark.parametrize("level", [1, 2, 5])
def test_a_node_comes_back(level: int) -> None:
    below = refs(5000)
    pieces = list(cut_refs(level, below))
    assert pieces == list(cut_refs(level, iter(below)))
    found = []
    for piece in pieces:
        got, inside = decode_node(piece.payload, "x")
        assert got == level
        assert (piece.first, piece.entries, piece.plain) == (inside[0].first, 10 * len(inside), 1000 * len(inside))
        found += inside
    assert found == below
    assert 5 < len(pieces) < 60


def test_a_node_without_cuts_ends_at_1024_refs_or_a_mebibyte_of_paths() -> None:
    """Very long paths: 1,024 of them were more than a reader takes."""
    uncut = [ref for ref in refs(6000) if ref.digest[0]]
    assert [piece.payload for piece in cut_refs(1, uncut[: NODE_REFS + 1])] == [
        encode_node(1, uncut[:NODE_REFS]),
        encode_node(1, uncut[NODE_REFS : NODE_REFS + 1]),
    ]
    long = [ref._replace(first=ref.first + b"/" + b"x" * 60_000) for ref in uncut[:200]]
    for piece in cut_refs(1, long):
        assert len(piece.payload) < PAYLOAD_MAX


@pytest.mark.parametrize(
    "payload",
    [
        b"", encode_node(0, []), encode_node(9, []), encode_node(1, refs(1)) + b"x",
        encode_node(1, [refs(1)[0]._replace(digest=bytes(31))]), encode_node(1, [refs(1)[0]._replace(epoch=-1)]),
        msgspec.msgpack.encode((1, [[b"a", bytes(32), 0, 1]])), msgspec.msgpack.encode(("1", [])),
    ],
)  # fmt: skip
def test_a_node_that_is_malformed_is_damage(payload: bytes) -> None:
    with pytest.raises(DamageError):
        decode_node(payload, "x")


def test_chunk_lists_are_cut_where_their_ids_say() -> None:
    many = [blake3(b"%d" % n).digest() for n in range(30_000)]
    joined = b"".join(many)
    pieces = list(cut_ids(joined))
    assert b"".join(piece.payload for piece in pieces) == joined
    assert sum(piece.entries for piece in pieces) == 30_000
    assert 15 < len(pieces) < 60
    assert all(piece.entries <= LEAF_IDS for piece in pieces)
    other = list(cut_ids(b"".join([*many[:15_000], bytes([1]) * 32, *many[15_000:]])))
    assert len({piece.payload for piece in other} - {piece.payload for piece in pieces}) <= 2
    uncut = bytes([255]) * 32 * (LEAF_IDS + 1)
    assert [piece.entries for piece in cut_ids(uncut)] == [LEAF_IDS, 1]
    assert list(cut_ids(b"")) == []
    assert split_ids(joined) == many


def test_text_that_is_no_utf_8_is_damage() -> None:
    entry = encode(Folder(b"d/", user="\N{LATIN SMALL LETTER E WITH ACUTE}"))
    for decoder, payload in ((decode_segment, encode_segment([entry.replace(b"\xc3", b"\xff")])), (decode_names, b"\x91\xa1\x80")):
        with pytest.raises(DamageError):
            decoder(payload, "x")


def test_change_lists_and_names_come_back() -> None:
    lines = [ChangeLine("+", b"a"), ChangeLine(">", b"\xff", b"old"), ChangeLine(".", b"d/")]
    assert decode_changes(encode_changes(lines), "x") == lines
    keys = ["packs/aa/x.1", "index/é.0"]
    assert decode_names(encode_names(keys), "x") == keys
