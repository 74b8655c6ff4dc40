"""A second reader of format version 1, written from docs/format.md alone: it imports nothing of mirror and has at most 200 lines.

    python independent_reader.py TARGET NUMBER OUT      restores snapshot NUMBER (or `latest`) of a folder target into a new folder

It holds the index in memory and reads one block at a time: meant to prove the format, not to be fast.
"""

from __future__ import annotations

import json
import os
import re
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import zstandard
from blake3 import blake3
from xxhash import xxh3_64_intdigest, xxh3_128_digest

PAYLOAD_MAX, BLOCK_MAX, PACK_MAX, JSON_MAX = 4 << 20, 8 << 20, 64 << 20, 1 << 20
SEAL = re.compile(rb',"blake3":"([0-9a-f]{64})"\}\n?\Z')


class DamagedError(Exception):
    """Something is not as the format says."""


def check(holds: object, what: object) -> None:
    if not holds:
        raise DamagedError(what)


def expand(body: bytes, codec: int, limit: int, where: str) -> bytes:
    if codec == 0:
        check(len(body) <= limit, where)
        return body
    check(codec == 1, where)
    size = zstandard.frame_content_size(body)
    check(0 <= size <= limit, where)
    return zstandard.ZstdDecompressor().decompress(body, max_output_size=size)


def envelope(data: bytes, kinds: str, where: str) -> tuple[str, int]:
    magic, kind, version, codec, _, key = struct.unpack_from("<4sBBBBQ", data)
    check(magic == b"MIRR" and version == 1 and key == 0 and chr(kind) in kinds, where)
    return chr(kind), codec


class Mirror:
    """A folder target. `records` are read as needed, the index at once."""

    def __init__(self, root: str) -> None:
        self.root = Path(root)
        self.info = self.sealed("mirror.json")
        check(self.info["ids"] == "blake3" and self.info["layout"] == "packed", "mirror.json")
        numbers = [int(name[:12]) for name in os.listdir(self.root / "log") if re.fullmatch(r"\d{12}\.json", name)]
        self.head = self.record(max(numbers))
        self.dooms = self.learn_dooms()
        self.places = dict(self.read_index())

    def get(self, key: str, limit: int) -> bytes:
        check((self.root / key).stat().st_size <= limit, key)
        return (self.root / key).read_bytes()

    def sealed(self, key: str) -> dict[str, Any]:
        data = self.get(key, JSON_MAX)
        match = SEAL.search(data)
        check(match and blake3(data[: match.start()]).hexdigest().encode() == match[1], key)
        body: dict[str, Any] = json.loads(data)
        check(body["format"] == 1 and not body["features"]["read"], f"{key} needs a newer reader")
        return body

    def record(self, number: int) -> dict[str, Any]:
        body = self.sealed(f"log/{number:012d}.json")
        check(body["number"] == number and body["target"] == self.info["uuid"], number)
        return body

    def object(self, digest: bytes, epoch: int, kinds: str, place: str = "manifests") -> tuple[str, bytes]:
        name = f"{digest.hex()}.{epoch}"
        key = f"index/{name}" if place == "index" else f"{place}/{name[:2]}/{name}"
        data = self.get(key, PAYLOAD_MAX + 1040)
        kind, codec = envelope(data, kinds, key)
        payload = expand(data[16:], codec, PAYLOAD_MAX, key)
        check(blake3(kind.encode() + payload).digest() == digest, key)
        return kind, payload

    def learn_dooms(self) -> dict[str, int]:
        dooms: dict[str, int] = {}  # key → number of the newest prune record that names it
        number = self.head["number"] if self.head["kind"] == "prune" else self.head["prune"]
        while number:
            record = self.record(number)
            for payload in self.leaves(root_ref(record["dooms"]), "X"):
                for key in msgspec.msgpack.decode(payload):
                    dooms.setdefault(key, number)
            number = record["prune"]
        return dooms

    def doomed(self, key: str) -> bool:
        return self.dooms.get(key, 0) > int(key.rpartition(".")[2])

    def read_index(self) -> Iterator[tuple[bytes, tuple[str, int, int, int, int, int]]]:
        """Chunk id → pack's key, block's offset, length and plain length, chunk's offset and length."""
        for name in os.listdir(self.root / "index"):
            if self.doomed(f"index/{name}"):
                continue
            digest, _, epoch = name.partition(".")
            packs, ids, places = msgspec.msgpack.decode(self.object(bytes.fromhex(digest), int(epoch), "I", "index")[1])
            check(len(ids) % 32 == 0 and len(places) == len(ids) // 2, name)
            for at, (pack, block, offset, length) in enumerate(struct.iter_unpack("<4I", places)):
                pack_digest, pack_epoch, size, blocks = packs[pack]
                start, stored, plain = blocks[block]
                check(offset + length <= plain <= BLOCK_MAX and start + stored <= size <= PACK_MAX, name)
                key = f"packs/{pack_digest.hex()[:2]}/{pack_digest.hex()}.{pack_epoch}"
                if not self.doomed(key):
                    yield ids[32 * at : 32 * at + 32], (key, start, stored, plain, offset, length)

    def leaves(self, ref: list[Any], leaf: str, level: int = 0) -> Iterator[bytes]:
        """The payloads of the leaves below a ref, in order."""
        kind, payload = self.object(ref[1], ref[2], leaf + "N")
        if kind == leaf:
            check(level <= 1, "a leaf too far up")
            yield payload
            return
        found, refs = msgspec.msgpack.decode(payload)
        check(1 <= found <= 8 and level in (0, found + 1), "a node of the wrong level")
        for below in refs:
            yield from self.leaves(below, leaf, found)

    def entries(self, record: dict[str, Any]) -> Iterator[list[Any]]:
        last = None
        for payload in self.leaves(root_ref(record["manifest"]), "S"):
            for entry in msgspec.msgpack.decode(payload):
                path = entry[1]
                parts = path.removesuffix(b"/").split(b"/") if path else []
                check(not {b"", b".", b".."} & set(parts) and b"\0" not in path and len(path) <= 65_536, path)
                check((entry[0] == "d") == (path[-1:] in (b"", b"/")) and (last is None or last < path), path)
                last = path
                yield entry

    def chunk(self, id_: bytes) -> bytes:
        key, start, stored, plain, offset, length = self.places[id_]
        with open(self.root / key, "rb") as file:
            check(envelope(file.read(16), "P", key)[1] == 0, key)
            file.seek(start)
            block = file.read(stored)
        magic, version, codec, _, size, whole, count, checksum, _ = struct.unpack_from("<4sBBHIIIQI", block)
        check(magic == b"MBLK" and version == 1 and whole == plain and 32 + 4 * count + size == stored, key)
        check(xxh3_64_intdigest(block[32:]) == checksum, key)
        content = expand(block[32 + 4 * count :], codec, BLOCK_MAX, key)
        check(len(content) == plain == sum(struct.unpack_from(f"<{count}I", block, 32)), key)
        chunk = content[offset : offset + length]
        check(blake3(chunk).digest() == id_, key)
        return chunk

    def content(self, size: int, fingerprint: bytes, ids: bytes, more: list[Any] | None) -> bytes:
        joined = b"".join(self.leaves(more, "L")) if more else ids
        data = b"".join(self.chunk(joined[at : at + 32]) for at in range(0, len(joined), 32))
        check(len(data) == size and xxh3_128_digest(data) == fingerprint, "content")
        return data

    def restore(self, number: int, out: bytes) -> None:
        check(any(first <= number <= last for first, last in self.head["live"]), f"snapshot {number} is not live")
        links, times = [], []
        os.mkdir(out)
        for kind, path, *rest in self.entries(self.record(number)):
            where = os.path.join(out, path).removesuffix(b"/")
            os.makedirs(where if kind == "d" else os.path.dirname(where), exist_ok=True)
            if kind == "d":
                times.append((where, rest[0], rest[1]))
            elif kind == "l":
                links.append((rest[0], where, rest[1]))  # made last: nothing is ever written through a link
            elif kind == "f" and rest[11]:
                os.link(os.path.join(out, rest[11]), where, follow_symlinks=False)
            elif kind == "f":
                size, fingerprint, _, ids, more, mtime, mode = rest[:7]
                Path(os.fsdecode(where)).write_bytes(self.content(size, fingerprint, ids, more))
                times.append((where, mtime, mode))
        for target, where, mtime in links:
            os.symlink(target, where)
            if mtime is not None:
                os.utime(where, ns=(mtime, mtime), follow_symlinks=False)
        for where, mtime, mode in reversed(times):
            if mode is not None:
                os.chmod(where, mode)
            if mtime is not None:
                os.utime(where, ns=(mtime, mtime))


def root_ref(value: dict[str, Any]) -> list[Any]:
    return [b"", bytes.fromhex(value["blake3"]), value["epoch"], value["count"], value["bytes"]]


if __name__ == "__main__":
    mirror = Mirror(sys.argv[1])
    mirror.restore(mirror.head["live"][-1][1] if sys.argv[2] == "latest" else int(sys.argv[2]), os.fsencode(sys.argv[3]))
