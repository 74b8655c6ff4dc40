"""Where files are cut: the same whether a file is held or streamed, whatever a read gives; and who stays in which class."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mirrors import noise
from xxhash import xxh3_128_digest

from mirror.chunking import AVERAGES, LIMITS, WINDOW, chunk_class, chunk_id, cut, cut_stream, identify

calm = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # other work may be going on here
MIB = 1 << 20
BIG = noise(13 * MIB, 3)
TEXT = b"".join(b"line %d of a log that goes on and on\n" % n for n in range(200_000))


def reader(data: bytes, sizes: Callable[[], int] | None = None) -> Callable[[int], bytes]:
    """`read(n)` over data, giving at most what `sizes` says."""
    at = 0

    def read(count: int) -> bytes:
        nonlocal at
        piece = data[at : at + (min(count, sizes()) if sizes else count)]
        at += len(piece)
        return piece

    return read


@settings(calm, max_examples=40)
@given(
    st.sampled_from((BIG, TEXT, bytes(9 * MIB))),
    st.integers(0, 13 * MIB),
    st.integers(0, 2),
    st.integers(1, 5 * MIB),
    st.integers(),
)
def test_a_stream_is_cut_as_the_whole_file(data: bytes, size: int, class_: int, most: int, seed: int) -> None:
    data = data[:size]
    random = Random(seed)
    streamed = list(cut_stream(reader(data, lambda: random.randint(1, most) if most > 4096 else most + 4096), class_))
    whole = [bytes(piece) for piece in cut(data, class_)]
    assert streamed == whole
    assert b"".join(whole) == data


@pytest.mark.parametrize("class_", [0, 1, 2])
def test_chunks_keep_to_their_sizes(class_: int) -> None:
    average = AVERAGES[class_]
    for data in (BIG, TEXT):
        lengths = [len(piece) for piece in cut(data, class_)]
        assert max(lengths) <= 4 * average
        assert all(length >= average // 4 for length in lengths[:-1])
    assert average / 2 < len(BIG) / len(list(cut(BIG, class_))) < average * 2


@pytest.mark.parametrize("class_", [0, 1, 2])
def test_a_file_up_to_the_minimum_is_one_chunk_and_an_empty_one_none(class_: int) -> None:
    least = AVERAGES[class_] // 4
    assert list(cut(b"", class_)) == list(cut_stream(reader(b""), class_)) == []
    for size in (1, least - 1, least):
        assert [bytes(piece) for piece in cut(BIG[:size], class_)] == [BIG[:size]] == list(cut_stream(reader(BIG[:size]), class_))


def test_one_byte_inserted_changes_few_chunks() -> None:
    before = {chunk_id(piece) for piece in cut(TEXT, 0)}
    after = {chunk_id(piece) for piece in cut(TEXT[:3_000_000] + b"!" + TEXT[3_000_000:], 0)}
    assert len(after - before) <= 4


# -- reading a file ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 4096, 16 << 10, MIB, WINDOW - 1, WINDOW, WINDOW + 1, 9 * MIB])
@pytest.mark.parametrize("short", [False, True], ids=["full reads", "short reads"])
def test_identify_hands_over_every_chunk(size: int, short: bool) -> None:
    data, taken = BIG[:size], []
    read = reader(data, (lambda: 100_000) if short else None)
    done, fingerprint, joined = identify(read, size, 0, lambda id_, piece: taken.append((id_, bytes(piece))))
    assert (done, fingerprint) == (size, xxh3_128_digest(data))
    assert b"".join(piece for _, piece in taken) == data
    assert [piece for _, piece in taken] == [bytes(piece) for piece in cut(data, 0)]
    assert joined == b"".join(blake3(piece).digest() for _, piece in taken)


@pytest.mark.parametrize("expected", [100, MIB, 6 * MIB])
def test_a_file_that_grows_is_read_to_the_size_it_had(expected: int) -> None:
    endless = reader(bytes(64 * MIB))
    done, fingerprint, _ = identify(endless, expected, 0, lambda id_, piece: None)
    assert (done, fingerprint) == (expected, xxh3_128_digest(bytes(expected)))


@pytest.mark.parametrize("there", [0, 5, 1000, 5 * MIB])
def test_a_file_that_shrank_gives_what_is_there(there: int) -> None:
    done, fingerprint, joined = identify(reader(BIG[:there]), 8 * MIB, 0, lambda id_, piece: None)
    assert (done, fingerprint) == (there, xxh3_128_digest(BIG[:there]))
    assert len(joined) == 32 * len(list(cut(BIG[:there], 0)))


def test_what_reading_raises_passes() -> None:
    def broken(count: int) -> bytes:
        raise OSError(5, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        identify(broken, 100, 0, lambda id_, piece: None)


def test_ids_are_keyed_where_there_is_a_key() -> None:
    assert chunk_id(b"x") == blake3(b"x").digest()
    assert chunk_id(b"x", bytes(32)) == blake3(b"x", key=bytes(32)).digest() != chunk_id(b"x")


# -- classes ----------------------------------------------------------------------------------------------------------


def test_classes_of_new_files() -> None:
    assert [chunk_class(size) for size in (0, LIMITS[0] - 1, LIMITS[0], LIMITS[1] - 1, LIMITS[1], 1 << 45)] == [0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize(
    ("size", "before", "after"),
    [
        (LIMITS[0], 0, 0), (4 * LIMITS[0] - 1, 0, 0), (4 * LIMITS[0], 0, 1), (LIMITS[1], 0, 2), (4 * LIMITS[1], 0, 2),
        (LIMITS[0] - 1, 1, 1), (LIMITS[0] // 4, 1, 1), (LIMITS[0] // 4 - 1, 1, 0), (0, 1, 0),
        (LIMITS[1], 1, 1), (4 * LIMITS[1] - 1, 1, 1), (4 * LIMITS[1], 1, 2),
        (LIMITS[1] - 1, 2, 2), (LIMITS[1] // 4, 2, 2), (LIMITS[1] // 4 - 1, 2, 1), (5, 2, 0),
        (5, 7, 0), (5, -1, 0), (LIMITS[0], 3, 1),
    ],
)  # fmt: skip
def test_a_class_is_kept_until_it_is_outgrown_fourfold(size: int, before: int, after: int) -> None:
    assert chunk_class(size, before) == after


@calm
@given(st.integers(0, 1 << 40), st.integers(0, 2))
def test_a_class_is_stable(size: int, before: int) -> None:
    """Asked again about the same size, it stays."""
    assert chunk_class(size, chunk_class(size, before)) == chunk_class(size, before)
