"""Runs of a file that stayed: found from chunk lists, true against the bytes, and worth it on a real bucket."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from conftest import S3
from mirrors import noise

from mirror.chunking import ChunkId, chunk_class, identify
from mirror.site import SiteSpec, Written
from mirror.site.bucket_writing import WritableBucket
from mirror.site.writing import Description
from mirror.transfer.runs import unchanged

MIB = 1 << 20


def chunks(data: bytes, class_: int | None = None) -> list[tuple[ChunkId, int]]:
    """The chunks of some content, as a sync cuts it."""
    found: list[tuple[ChunkId, int]] = []
    rest = memoryview(data)

    def read(size: int) -> bytes:
        nonlocal rest
        piece, rest = bytes(rest[:size]), rest[size:]
        return piece

    identify(
        read, len(data), chunk_class(len(data)) if class_ is None else class_, lambda id_, piece: found.append((id_, len(piece)))
    )
    assert sum(length for _, length in found) == len(data)
    return found


@pytest.mark.parametrize("seed", range(20))
def test_runs_are_true(seed: int) -> None:
    """Edits by hand: cut, insert, repeat, swap; every run is the same bytes in both."""
    chance = random.Random(seed)
    old = noise(600_000, seed)
    new = bytearray(old)
    for _ in range(chance.randrange(6)):
        at, length = chance.randrange(len(new)), chance.randrange(1, 100_000)
        edit = chance.randrange(3)
        if edit == 0:
            del new[at : at + length]
        elif edit == 1:
            new[at:at] = chance.randbytes(length)
        else:
            new[at:at] = old[:length]
    end, covered = 0, 0
    for run in unchanged(chunks(old, 0), chunks(bytes(new), 0)):
        assert run.at >= end
        end = run.at + run.length
        covered += run.length
        assert new[run.at : end] == old[run.old : run.old + run.length]
    assert covered >= len(new) * 0.2


def test_an_inserted_byte_leaves_one_long_run() -> None:
    old = noise(3_000_000)
    runs = list(unchanged(chunks(old), chunks(b"!" + old)))
    assert len(runs) == 1
    assert runs[0].length > 2_800_000
    assert runs[0].at == runs[0].old + 1


def test_nothing_and_everything() -> None:
    old = chunks(noise(100_000))
    assert [run.length for run in unchanged(old, old)] == [100_000]
    assert list(unchanged(old, [])) == []
    assert list(unchanged([], old)) == []


def test_one_byte_in_front_of_a_large_object_costs_little(s3: S3) -> None:
    spec = SiteSpec(s3.url("site"), endpoint_url=s3.endpoint_url, region=s3.region, static_credentials=True)
    site = WritableBucket(spec)
    old = noise(96 * MIB)
    new = b"!" + old
    first = site.put(b"f", len(old), (old[at : at + MIB] for at in range(0, len(old), MIB)), Description())
    assert isinstance(first, Written)
    sent = 0

    def content(at: int, length: int) -> Iterator[bytes]:
        nonlocal sent
        sent += length
        yield new[at : at + length]

    done = site.put_changed(b"f", len(new), unchanged(chunks(old), chunks(new)), content, Description(), first.tag)
    assert isinstance(done, Written)
    assert sent <= 6 * MIB
    assert s3.client.get_object(Bucket=s3.bucket, Key=f"{s3.prefix}/site/f")["Body"].read() == new
