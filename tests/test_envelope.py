"""What is around every object: damage is told from a newer format, and neither costs memory."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import zstandard
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mirror.envelope import (
    FRAGMENT,
    HEADER_SIZE,
    NODE,
    PAYLOAD_MAX,
    RAW,
    SEGMENT,
    ZSTD,
    check_format,
    digest_of,
    header,
    read_header,
    seal,
    sealed_json,
    unseal,
    unsealed_json,
)
from mirror.errors import DamageError, MirrorError, UsageError

ROOT = Path(__file__).resolve().parents[1]
calm = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # other work may be going on here


@calm
@given(st.binary(max_size=3000), st.integers(0, 50), st.sampled_from((SEGMENT, NODE, FRAGMENT)))
def test_what_is_sealed_is_unsealed(data: bytes, times: int, kind: int) -> None:
    payload = data * times
    sealed = seal(kind, payload)  # type: ignore[arg-type]
    assert unseal(sealed, (kind,), digest_of(kind, payload), "x") == (kind, payload)  # type: ignore[arg-type]
    assert len(sealed) <= HEADER_SIZE + len(payload)


@calm
@given(st.data(), st.booleans())
def test_no_changed_byte_goes_unnoticed(data: st.DataObject, text: bool) -> None:
    payload = b"all work and no play " * 40 if text else bytes(range(256))
    sealed = bytearray(seal(SEGMENT, payload))
    at = data.draw(st.integers(0, len(sealed) - 1))
    sealed[at] ^= data.draw(st.integers(1, 255))
    try:
        got = unseal(bytes(sealed), (SEGMENT,), digest_of(SEGMENT, payload), "x")
    except DamageError:
        return
    except UsageError:
        assert at in (5, *range(8, 16)), "version and key id: a newer format for all we know"
        return
    assert got == (SEGMENT, payload)
    assert at >= HEADER_SIZE, "some bits of a zstd frame say nothing; what is inside is proved"


@pytest.mark.parametrize("size", range(HEADER_SIZE + 3))
def test_an_object_cut_short_is_damage(size: int) -> None:
    sealed = seal(SEGMENT, b"payload " * 100)[:size]
    with pytest.raises(DamageError):
        unseal(sealed, (SEGMENT,), digest_of(SEGMENT, b"payload " * 100), "x")


def test_kinds_are_told_apart() -> None:
    with pytest.raises(DamageError, match="of kind 'N', not S/I"):
        unseal(seal(NODE, b"x"), (SEGMENT, FRAGMENT), None, "x")
    assert digest_of(NODE, b"x") != digest_of(SEGMENT, b"x")


@pytest.mark.parametrize(("at", "value", "text"), [(5, 2, "format version 2"), (8, 9, "encrypted with key 9")])
def test_a_newer_format_or_a_key_is_no_damage(at: int, value: int, text: str) -> None:
    sealed = bytearray(seal(SEGMENT, b"x"))
    sealed[at] = value
    with pytest.raises(UsageError, match=text) as caught:
        read_header(sealed, "x")
    assert caught.value.kind == "newer-format"


@pytest.mark.parametrize(("at", "value"), [(0, 0), (6, 2), (7, 1)])
def test_a_spoilt_header_is_damage(at: int, value: int) -> None:
    sealed = bytearray(seal(SEGMENT, b"x"))
    sealed[at] = value
    with pytest.raises(DamageError):
        read_header(sealed, "x")


def test_a_payload_that_nobody_could_read_is_not_written() -> None:
    payload = bytes(PAYLOAD_MAX)
    assert unseal(seal(SEGMENT, payload), (SEGMENT,), None, "x") == (SEGMENT, payload)
    with pytest.raises(MirrorError, match="at most 4194304 are allowed"):
        seal(SEGMENT, payload + b"x")


def _bomb(claims: int | None, size: int) -> bytes:
    compressor = zstandard.ZstdCompressor(write_content_size=claims is not None)
    packed = compressor.compress(bytes(size))
    if claims is not None and claims != size:
        at = packed.index(struct.pack("<I", size))
        packed = packed[:at] + struct.pack("<I", claims) + packed[at + 4 :]
    return header(SEGMENT, ZSTD) + packed


@pytest.mark.parametrize(
    "data",
    [
        _bomb(PAYLOAD_MAX + 1, PAYLOAD_MAX + 1),
        _bomb(1 << 20, 1 << 30),
        _bomb(None, 1 << 20),
        header(SEGMENT, RAW) + bytes(PAYLOAD_MAX + 1),
        header(SEGMENT, ZSTD) + b"no frame",
        header(SEGMENT, ZSTD),
    ],
    ids=["too large", "lies", "does not say", "raw", "no frame", "nothing"],
)
def test_sizes_are_bounded_before_anything_is_decompressed(data: bytes) -> None:
    with pytest.raises(DamageError):
        unseal(data, (SEGMENT,), None, "x")


# -- JSON -------------------------------------------------------------------------------------------------------------

words = st.text(st.sampled_from('ab"\\\n\0é\ud800€𝄞'), max_size=6)
scalars = st.none() | st.booleans() | st.integers() | words
values = scalars | st.lists(scalars, max_size=3)


@calm
@given(st.dictionaries(words, values, max_size=5))
def test_json_that_is_sealed_is_unsealed(body: dict[str, object]) -> None:
    body = body | {"number": 1}
    body.pop("blake3", None)
    sealed = sealed_json(body)
    assert {key: value for key, value in unsealed_json(sealed, "x").items() if key != "blake3"} == body
    assert sealed_json(unsealed_json(sealed, "x")) == sealed
    assert unsealed_json(sealed.rstrip(b"\n"), "x")


@calm
@given(st.data())
def test_no_changed_byte_of_json_goes_unnoticed(data: st.DataObject) -> None:
    sealed = bytearray(sealed_json({"number": 5, "text": "é"}))
    at = data.draw(st.integers(0, len(sealed) - 2))
    sealed[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(DamageError):
        unsealed_json(bytes(sealed), "x")


def _signed(text: bytes) -> bytes:
    return text + b',"blake3":"' + blake3(text).hexdigest().encode() + b'"}\n'


@pytest.mark.parametrize("text", [b'["x"', b'{"x":', b'{"x":\xff', b'{"x":' + b"[" * 200_000, b""])
def test_json_with_a_right_checksum_and_no_sense_is_damage(text: bytes) -> None:
    with pytest.raises(DamageError):
        unsealed_json(_signed(text), "x")


def test_only_the_last_member_is_the_checksum() -> None:
    inner = json.dumps({"blake3": "0" * 64, "a": 1}).encode()[:-1]
    assert unsealed_json(_signed(inner), "x")["a"] == 1


IN_THREADS = """
import random
from concurrent.futures import ThreadPoolExecutor
from mirror.envelope import SEGMENT, seal, unseal

def text(seed):
    dice = random.Random(seed)
    words = [dice.randbytes(dice.randrange(3, 9)).hex() for _ in range(500)]
    return " ".join(dice.choices(words, k=60_000)).encode()

def often(payload, sealed):
    return all(unseal(sealed, (SEGMENT,), None, "x")[1] == payload for _ in range(40))

payloads = [text(seed) for seed in range(4)]
with ThreadPoolExecutor(4) as pool:
    assert all(pool.map(often, payloads, [seal(SEGMENT, payload) for payload in payloads]))
"""


def test_threads_that_unseal_at_once_get_what_is_theirs() -> None:
    """With one decompressor for all this ends in a segmentation fault, so it has a process of its own."""
    done = subprocess.run([sys.executable, "-c", IN_THREADS], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("use", ["read", "write", "prune"])
def test_features_count_for_their_use_alone(use: str) -> None:
    body = {"format": 1, "features": {use: ["shards", "a"]}}
    for other in ("read", "write", "prune"):
        if other == use:
            with pytest.raises(UsageError, match="the features a, shards"):
                check_format(body, "x", other)
        else:
            check_format(body, "x", other)
    check_format({"format": 1}, "x", use)
