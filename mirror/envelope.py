"""What is around every object: sixteen bytes before a binary one, a checksum at the end of a JSON one. Pure.

    offset  bytes
    0       4      magic  "MIRR"
    4       1      kind   an ASCII letter, below
    5       1      format version, 1
    6       1      codec: 0 as it is, 1 one zstd frame that states its content size
    7       1      0
    8       8      key id, little-endian; 0: not encrypted

What follows is the payload, by its codec. A manifest object or index fragment is named by the BLAKE3 of its kind byte and
its *plain* payload, so the same content has the same name whatever zstd's version made of it. `unseal` checks the name: nobody
gets a payload that is not what the name says. Sizes are bounded before anything is decompressed.

Records and mirror.json are not named by their content, so they carry it: the last member of the JSON object is `blake3`, the
BLAKE3 of all bytes before the `,"blake3"` that begins it. Unknown members are kept.
"""

from __future__ import annotations

import json
import re
import struct
import threading
from datetime import UTC, datetime
from typing import Any, NewType

import zstandard
from blake3 import blake3

from mirror.errors import DamageError, MirrorError, UsageError

MAGIC = b"MIRR"
VERSION = 1
RAW, ZSTD = 0, 1
HEADER = struct.Struct("<4sBBBBQ")
HEADER_SIZE = HEADER.size

Kind = NewType("Kind", int)
SEGMENT, NODE, CHUNKS = Kind(ord("S")), Kind(ord("N")), Kind(ord("L"))
CHANGES, NAMES = Kind(ord("D")), Kind(ord("X"))
PACK, FOOTER, FRAGMENT = Kind(ord("P")), Kind(ord("F")), Kind(ord("I"))

PAYLOAD_MAX = 4 << 20  # plain bytes of any manifest object, fragment or footer
OBJECT_MAX = PAYLOAD_MAX + HEADER_SIZE + 1024  # as stored
KNOWN_FEATURES: frozenset[str] = frozenset()
_END = re.compile(rb',"blake3":"([0-9a-f]{64})"\}\n?\Z')


class _Zstd(threading.local):
    """One for each thread, as the zstd manual asks: two threads that decompress with the same one spoil each other's bytes."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=3)
        self.decompressor = zstandard.ZstdDecompressor()


_zstd = _Zstd()


def header(kind: Kind, codec: int) -> bytes:
    """The sixteen bytes of an unencrypted object of this version."""
    return HEADER.pack(MAGIC, kind, VERSION, codec, 0, 0)


def read_header(data: bytes | memoryview, where: str) -> tuple[Kind, int]:
    """(kind, codec) of an object. DamageError when it is none; UsageError when a newer mirror or a key is needed."""
    if len(data) < HEADER_SIZE:
        raise DamageError("cannot read the object", where=where, why=f"it has {len(data)} bytes, a header alone has {HEADER_SIZE}")
    magic, kind, version, codec, zero, key = HEADER.unpack_from(data)
    if magic != MAGIC:
        raise DamageError("cannot read the object", where=where, why="it does not begin with MIRR")
    if version != VERSION:
        raise UsageError(
            "cannot read the object",
            where=where,
            why=f"it has format version {version}, this program reads 1",
            hint="use a newer mirror",
            kind="newer-format",
        )
    if key != 0:
        raise UsageError(
            "cannot read the object",
            where=where,
            why=f"it is encrypted with key {key:x}",
            hint="use a newer mirror",
            kind="newer-format",
        )
    if codec not in (RAW, ZSTD) or zero:
        raise DamageError(
            "cannot read the object", where=where, why=f"codec {codec} is unknown" if not zero else "its header is spoilt"
        )
    return Kind(kind), codec


def digest_of(kind: Kind, payload: bytes) -> bytes:
    """The BLAKE3 that names an object: of its kind byte and its plain payload."""
    return blake3(bytes((kind,))).update(payload).digest()


def seal(kind: Kind, payload: bytes) -> bytes:
    """The stored bytes of an object; compressed where that makes it smaller. MirrorError for one that nobody could read."""
    if len(payload) > PAYLOAD_MAX:
        raise MirrorError("cannot store an object", why=f"its payload has {len(payload)} bytes, at most {PAYLOAD_MAX} are allowed")
    packed = _zstd.compressor.compress(payload)
    if len(packed) < len(payload):
        return header(kind, ZSTD) + packed
    return header(kind, RAW) + payload


def unseal(data: bytes, kinds: tuple[Kind, ...], digest: bytes | None, where: str) -> tuple[Kind, bytes]:
    """(kind, plain payload) of stored bytes. DamageError unless the kind is one of `kinds` and the content has `digest`.

    digest None is for objects that carry their own checksum (a pack's footer).
    """
    kind, codec = read_header(data, where)
    if kind not in kinds:
        raise DamageError(
            "cannot read the object", where=where, why=f"it is of kind {chr(kind)!r}, not {'/'.join(map(chr, kinds))}"
        )
    payload = expand(data[HEADER_SIZE:], codec, PAYLOAD_MAX, where)
    if digest is not None and digest_of(kind, payload) != digest:
        raise DamageError("cannot use the object", where=where, why="its content is not what its name says")
    return kind, payload


def expand(body: bytes | memoryview, codec: int, limit: int, where: str) -> bytes:
    """The plain bytes behind a codec. DamageError past `limit`, checked before a byte is decompressed."""
    if codec == RAW:
        if len(body) > limit:
            raise DamageError(
                "cannot read the object", where=where, why=f"its payload has {len(body)} bytes, at most {limit} are allowed"
            )
        return bytes(body)
    try:
        size = zstandard.frame_content_size(body)
        if size < 0 or size > limit:
            raise DamageError(
                "cannot read the object", where=where, why=f"its payload claims {size} bytes, at most {limit} are allowed"
            )
        plain = _zstd.decompressor.decompress(body, max_output_size=size)
    except zstandard.ZstdError as error:
        raise DamageError("cannot decompress the object", where=where, why=str(error)) from error
    return plain


def write_time(moment: datetime) -> str:
    """RFC 3339 in UTC with milliseconds, as records have it."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def sealed_json(body: dict[str, Any]) -> bytes:
    """JSON bytes that end in their own BLAKE3; how records and mirror.json are stored."""
    text = json.dumps({k: v for k, v in body.items() if k != "blake3"}, ensure_ascii=True, separators=(",", ":")).encode()
    return text[:-1] + b',"blake3":"' + blake3(text[:-1]).hexdigest().encode() + b'"}\n'


def unsealed_json(data: bytes, where: str) -> dict[str, Any]:
    """The members behind `sealed_json`. DamageError unless the bytes are what their BLAKE3 says."""
    match = _END.search(data)
    if not match:
        raise DamageError("cannot read", where=where, why="it does not end in its own checksum (cut short or overwritten)")
    if blake3(data[: match.start()]).hexdigest().encode() != match[1]:
        raise DamageError("cannot use", where=where, why="its bytes are not what its checksum says")
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DamageError("cannot read", where=where, why=str(error)) from error
    if not isinstance(body, dict):
        raise DamageError("cannot read", where=where, why="it is not an object")
    return body


def check_format(body: dict[str, Any], where: str, use: str = "read") -> None:
    """UsageError when the record or mirror.json needs a newer mirror for this use: read, write or prune. DamageError when its
    features are no lists of names."""
    if body.get("format") != 1:
        what = f"it has format {body.get('format')!r}, this program knows 1"
        raise UsageError("cannot use", where=where, why=what, hint="use a newer mirror", kind="newer-format")
    try:
        missing = sorted(set(body.get("features", {}).get(use, [])) - KNOWN_FEATURES)
        names = ", ".join(missing)
    except (AttributeError, TypeError) as error:
        raise DamageError("cannot use", where=where, why="its features are no lists of names") from error
    if missing:
        what = f"whoever would {use} it must know the features {names}"
        raise UsageError("cannot use", where=where, why=what, hint="use a newer mirror", kind="newer-format")
