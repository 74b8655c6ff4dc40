"""Targets made by an enemy, valid in every checksum: whatever they say, nothing is written outside OUT, no link is followed, and
neither memory nor time is theirs to take.

Each command is a process with limits on its memory, its time and the size of its files.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import xxhash
import zstandard
from blake3 import blake3
from drive import drafts, limited, truth
from mirrors import BEGINNING, noise

from mirror.chunking import ChunkId, chunk_id
from mirror.envelope import CHUNKS, FRAGMENT, HEADER, NODE, SEGMENT, Kind, digest_of, seal, sealed_json
from mirror.index import PackLine, StoredPack, encode_fragments
from mirror.keys import INDEX, MANIFEST, PACK, ObjectName, record_key
from mirror.manifest import Entry, File, Folder, Ref, Symlink, encode, encode_node, encode_segment
from mirror.pack import PackBuilder, Slot


class Enemy:
    """A target by hand: every object sealed and named as it should be, its content as evil as it gets."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        self.uuid = "0123456789abcdef" * 2
        self.put(
            "mirror.json",
            sealed_json({"format": 1, "uuid": self.uuid, "layout": "packed", "site": "evil", "ids": "blake3", "chunking": {},
                         "features": {"read": [], "write": [], "prune": []}, "created": "2026-01-01T00:00:00.000Z"}),
        )  # fmt: skip

    def put(self, key: str, data: bytes | bytearray) -> None:
        """Any bytes under any key."""
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    def object(self, kind: Kind, payload: bytes, data: bytes | None = None) -> bytes:
        """A manifest object named by its payload; `data` instead of what it should be stored as. Its digest."""
        digest = digest_of(kind, payload)
        self.put(ObjectName(MANIFEST, digest, 0).key(), seal(kind, payload) if data is None else data)
        return digest

    def segment(self, entries: list[Entry] | list[bytes], first: bytes | None = None) -> Ref:
        """A segment of these entries (encoded or not), in their order."""
        rows = [each if isinstance(each, bytes) else encode(each) for each in entries]
        if first is None:
            first = entries[0].path if entries and not isinstance(entries[0], bytes) else b""
        plain = min(sum(each.size for each in entries if isinstance(each, File)), 2**63)
        return Ref(first, self.object(SEGMENT, encode_segment(rows)), 0, len(rows), plain)

    def node(self, level: int, refs: list[Ref]) -> Ref:
        """A node over refs."""
        digest = self.object(NODE, encode_node(level, refs))
        entries, plain = min(sum(r.entries for r in refs), 2**60), min(sum(r.plain for r in refs), 2**63)
        return Ref(refs[0].first if refs else b"", digest, 0, entries, plain)

    def chunks(self, *contents: bytes, tell: Callable[[list[Any]], list[Any]] = lambda wire: wire) -> list[ChunkId]:
        """A pack and a fragment with these chunks; `tell` changes what the fragment says. Their ids."""
        builder = PackBuilder()
        for content in contents:
            builder.add(chunk_id(content), content)
        pack = builder.finish()
        name = ObjectName(PACK, pack.digest, 0)
        self.put(name.key(), pack.data)
        for payload in encode_fragments([StoredPack(name, len(pack.data), pack.blocks)]):
            told = msgspec.msgpack.encode(tell(msgspec.msgpack.decode(payload)))
            self.put(ObjectName(INDEX, digest_of(FRAGMENT, told), 0).key(), seal(FRAGMENT, told))
        return [chunk_id(content) for content in contents]

    def snapshot(self, root: Ref, number: int = 1, **members: Any) -> None:
        """A record that names a manifest."""
        body = {
            "format": 1, "number": number, "kind": "snapshot", "uuid": f"{number:032x}", "target": self.uuid,
            "previous": {"number": number - 1, "blake3": "00" * 32} if number > 1 else None,
            "features": {"read": [], "write": [], "prune": []}, "time": "2026-01-01T00:00:00.000Z", "prune": 0,
            "source": {"host": "h", "path": "/p", "site": "evil"}, "started": "2026-01-01T00:00:00.000Z",
            "finished": "2026-01-01T00:00:00.000Z", "tags": [], "filters": [],
            "manifest": {"blake3": root.digest.hex(), "epoch": 0, "count": root.entries, "bytes": root.plain},
            "changes": None, "totals": {"entries": root.entries, "bytes": root.plain}, "complete": True, "problems": [],
            "problem_count": 0, "parents": [], "live": [[number, number]], "signatures": [],
        }  # fmt: skip
        self.put(record_key(number), sealed_json(body | members))

    def site(self, entries: list[Entry] | list[bytes]) -> None:
        """A snapshot of these entries, in one segment."""
        self.snapshot(self.node(1, [self.segment(entries)]))


def file(path: bytes, content: bytes = b"", **members: Any) -> File:
    """A file of one chunk (none, when empty)."""
    ids = chunk_id(content) if content else b""
    print_ = xxhash.xxh3_128_digest(content)
    return msgspec.structs.replace(File(path, len(content), print_, 0, ids, None, BEGINNING, 0o644), **members)


@pytest.fixture
def enemy(tmp_path: Path) -> Enemy:
    return Enemy(tmp_path / "target")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Where to restore: deep in a folder that is watched."""
    (tmp_path / "watched" / "a" / "b").mkdir(parents=True)
    return tmp_path / "watched" / "a" / "b" / "out"


def watched(out: Path) -> dict[bytes, Any]:
    """All that is around OUT but not in it."""
    return {p: t for p, t in truth(out.parents[2]).items() if not p.startswith(b"a/b/out") and not p.endswith(b"/") and p}


# -- paths --------------------------------------------------------------------------------------------------------------

PATHS = [b"../x", b"a/../../x", b"/etc/x", b"a//b", b"./x", b"a/./b", b"..", b".", b"a\0b", b"a/..", b"/", b"//", b"x" * 70_000]


@pytest.mark.parametrize("path", PATHS, ids=lambda path: repr(path[:12]))
@pytest.mark.parametrize("kind", ["file", "folder", "symlink", "hard link"])
def test_paths_that_lead_out(enemy: Enemy, out: Path, path: bytes, kind: str) -> None:
    if path.endswith(b"/") != (kind == "folder"):
        path = path.rstrip(b"/") + b"/" * (kind == "folder")
    enemy.chunks(b"evil")
    entries: list[Entry] = {
        "file": [file(path, b"evil")],
        "folder": [Folder(path, BEGINNING, 0o777)],
        "symlink": [Symlink(path, b"/etc/passwd")],
        "hard link": [file(b"zz", b"evil", link=path or b"/")],
    }[kind]  # type: ignore[assignment]
    enemy.site(entries)
    before = watched(out)
    done = limited("restore", enemy.root, out, "--in-place")
    assert done.code == 4 or path in (b"", b"/")
    assert watched(out) == before
    assert not out.exists() or not [p for p in truth(out) if p not in (b"", b"zz")]


def test_a_link_and_a_file_behind_it(enemy: Enemy, out: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    enemy.chunks(b"evil")
    link, behind = Symlink(b"a", os.fsencode(elsewhere)), file(b"a/passwd", b"evil")
    enemy.site([Folder(b""), link, behind, file(b"b", b"evil", link=b"a/passwd")])
    delete = ["--in-place", "--delete", "--max-delete", "100%"]
    for words in ([], ["--in-place"], delete, ["a/passwd", "--in-place"], ["--in-place", "-c"]):
        done = limited("restore", enemy.root, out, *words)
        assert done.code in (0, 4, 23), done
        assert os.listdir(elsewhere) == []
    assert drafts(out) == []


@pytest.mark.parametrize("in_place", [[], ["--in-place"], ["--in-place", "--delete", "--max-delete", "100%"], ["--in-place", "-c"]])
def test_links_that_lie_in_out_already(enemy: Enemy, out: Path, tmp_path: Path, in_place: list[str]) -> None:
    """Whoever may write into OUT has put links there: to a folder, to a file, and one that is named like a folder to come."""
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "sub").mkdir(parents=True)
    (elsewhere / "passwd").write_bytes(b"root")
    enemy.chunks(b"evil")
    folders = [Folder(b""), Folder(b"a/"), Folder(b"a/sub/")]
    enemy.site([folders[0], *folders[1:], file(b"a/sub/x", b"evil"), file(b"b", b"evil"), file(b"c", b"evil", link=b"b")])
    out.mkdir()
    (out / "a").symlink_to(elsewhere)
    (out / "b").symlink_to(elsewhere / "passwd")
    (out / "c").symlink_to(elsewhere / "new")
    before = truth(elsewhere)
    done = limited("restore", enemy.root, out, *in_place)
    assert done.code == (0 if in_place else 2), done
    assert truth(elsewhere) == before
    if in_place:
        assert (out / "a" / "sub" / "x").read_bytes() == b"evil"
        assert not (out / "a").is_symlink()
        assert (out / "b").read_bytes() == b"evil"


def test_a_file_and_paths_below_it(enemy: Enemy, out: Path) -> None:
    enemy.chunks(b"evil", b"good")
    enemy.site([Folder(b""), file(b"a", b"evil"), file(b"a/b", b"evil"), file(b"good", b"good")])
    for _ in range(2):
        done = limited("restore", enemy.root, out, "--in-place")
        assert done.code == 23, done
        assert (out / "good").read_bytes() == b"good"
    assert drafts(out) == []


@pytest.mark.parametrize("paths", [[b"a", b"a"], [b"b", b"a"], [b"", b""], [b"a/", b"a"], [b"z", b""]])
def test_paths_twice_or_out_of_order(enemy: Enemy, out: Path, paths: list[bytes]) -> None:
    """Within a segment, and from one segment to the next; for the whole snapshot and for a part."""
    enemy.chunks(b"evil")
    entries: list[Entry] = [Folder(p) if p.endswith(b"/") or not p else file(p, b"evil") for p in paths]
    enemy.site(entries)
    assert limited("restore", enemy.root, out).code == 4
    enemy.snapshot(enemy.node(1, [enemy.segment([entry]) for entry in entries]))
    assert limited("restore", enemy.root, out, "--in-place").code == 4
    for path in {p.strip(b"/") for p in paths} - {b""}:
        assert limited("restore", enemy.root, out, os.fsdecode(path), "--in-place").code == 4
    assert limited("ls", enemy.root).code == 4
    assert limited("verify", enemy.root).code == 4


# -- sizes --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 3, 5, 1 << 20, 100 << 20, 1 << 50, 2**63 - 1, 2**64 - 1])
def test_a_size_that_lies(enemy: Enemy, out: Path, size: int) -> None:
    enemy.chunks(b"evil", b"good")
    enemy.site([Folder(b""), file(b"evil", b"evil", size=size), file(b"good", b"good")])
    done = limited("restore", enemy.root, out, "--in-place")
    assert done.code in (4, 23), done
    if size < 2**63:  # else no manifest may say it, and its whole segment is refused
        assert (out / "good").read_bytes() == b"good"
        assert not (out / "evil").exists()
        assert drafts(out) == []
    assert limited("restore", enemy.root, out.parent / "out2").code in (4, 5)
    for words in (["verify"], ["ls", "-l"], ["cat", "evil"], ["sums", "--hash", "sha256"]):
        limited(words[0], enemy.root, *words[1:])


def test_a_list_of_chunks_without_end(enemy: Enemy, out: Path) -> None:
    """Eight levels of nodes that name one child thousands of times: more ids than atoms, in some kilobytes."""
    (id_,) = enemy.chunks(b"e")
    ref = Ref(b"", enemy.object(CHUNKS, id_ * 4096), 0, 4096, 0)
    for level in range(1, 9):
        ref = enemy.node(level, [ref] * 1000)
    for size in (4, 4096, 60 << 20, 1 << 40):
        enemy.site([Folder(b""), file(b"evil", b"", size=size, more=ref)])
        done = limited("restore", enemy.root, out, "--in-place")
        assert done.code in (4, 5, 23), done
        assert not (out / "evil").exists()
        assert drafts(out) == []
    assert limited("verify", enemy.root).code == 4


def test_chunks_of_nothing(enemy: Enemy, out: Path) -> None:
    """A chunk without bytes, listed as often as one likes, never fills a file."""
    empty = chunk_id(b"")

    def tell(wire: list[Any]) -> list[Any]:
        return [wire[0], empty, struct.pack("<IIII", 0, 0, 0, 0)]

    enemy.chunks(b"evil", tell=tell)
    ref = Ref(b"", enemy.object(CHUNKS, empty * 4096), 0, 4096, 0)
    for level in range(1, 9):
        ref = enemy.node(level, [ref] * 1000)
    enemy.site([Folder(b""), file(b"evil", b"", size=100 << 20, more=ref)])
    assert limited("restore", enemy.root, out, "--in-place").code in (4, 23)
    assert not (out / "evil").exists()


def test_a_manifest_without_end(enemy: Enemy, out: Path) -> None:
    """The same tree over segments: full ones, empty ones, and nodes without children."""
    full, none = enemy.segment([file(b"a")]), enemy.segment([])
    for leaf in (full, none, enemy.node(1, [])):
        ref = leaf
        for level in range(2 if leaf.digest != full.digest and leaf.digest != none.digest else 1, 9):
            ref = enemy.node(level, [ref] * 1000)
        enemy.snapshot(ref)
        restores = (["restore", out, "--in-place"], ["restore", out, "a", "--in-place"])
        for words in (*restores, ["ls"], ["verify"], ["verify", "--quick"]):
            done = limited(words[0], enemy.root, *words[1:])
            assert done.code in (2, 4), (words, done)


def test_levels_that_do_not_fit(enemy: Enemy, out: Path) -> None:
    leaf = enemy.segment([file(b"a")])
    for levels in ([200], [0], [-1], [3], [2, 2], [1, 3], [5, 1]):
        ref = leaf
        for level in levels:
            ref = Ref(b"a", enemy.object(NODE, msgspec.msgpack.encode((level, [ref]))), 0, 1, 0)
        enemy.snapshot(ref)
        for words in (["restore", out], ["restore", out, "a"], ["ls"], ["verify"]):
            assert limited(words[0], enemy.root, *words[1:]).code == 4, (levels, words)
    assert not out.exists()


# -- bombs --------------------------------------------------------------------------------------------------------------


def bomb(size: int, claim: int | None = None) -> bytes:
    """A zstd frame of `size` zeros that claims `claim` (None: nothing)."""
    if claim is None:
        return zstandard.ZstdCompressor(write_content_size=False).compress(bytes(size))
    params = zstandard.ZstdCompressionParameters(write_content_size=True, window_log=20)
    data = bytearray(zstandard.ZstdCompressor(compression_params=params).compress(bytes(size)))
    at = bytes(data).find(size.to_bytes(4, "little"))
    assert at > 0, "where the frame states its size"
    data[at : at + 4] = claim.to_bytes(4, "little")
    return bytes(data)


@pytest.mark.parametrize(
    "body", [bomb(300 << 20, 4 << 20), bomb(300 << 20, 300 << 20), bomb(300 << 20), bomb(300 << 20, 2**32 - 1)],
    ids=["lies", "honest", "silent", "4 GiB"],
)  # fmt: skip
def test_bombs(enemy: Enemy, out: Path, body: bytes) -> None:
    """In a segment, in a fragment and in a block."""
    head = HEADER.pack(b"MIRR", SEGMENT, 1, 1, 0, 0)
    digest = enemy.object(SEGMENT, b"what it is not", head + body)
    enemy.snapshot(enemy.node(1, [Ref(b"", digest, 0, 1, 0)]))
    for words in (["restore", out], ["ls"], ["verify"]):
        assert limited(words[0], enemy.root, *words[1:]).code == 4

    enemy.put(ObjectName(INDEX, bytes(32), 0).key(), HEADER.pack(b"MIRR", FRAGMENT, 1, 1, 0, 0) + body)
    enemy.site([Folder(b""), file(b"evil", b"evil")])
    for words in (["restore", out, "--in-place"], ["verify"]):
        assert limited(words[0], enemy.root, *words[1:]).code == 4

    for plain in (1 << 20, 8 << 20, 2**32 - 1):
        lengths = struct.pack("<I", plain)
        head = struct.pack("<4sBBHIIIQI", b"MBLK", 1, 1, 0, len(body), plain, 1, xxhash.xxh3_64_intdigest(lengths + body), 0)
        block = head + lengths + body
        pack = HEADER.pack(b"MIRR", PACK_KIND, 1, 0, 0, 0) + block
        name = ObjectName(PACK, blake3(pack).digest(), 0)
        enemy.put(name.key(), pack)
        line = PackLine(name.digest, 0, len(pack), [Slot(16, len(block), min(plain, 8 << 20))])
        payload = msgspec.msgpack.encode([[line], chunk_id(b"evil"), struct.pack("<IIII", 0, 0, 0, 4)])
        enemy.put(ObjectName(INDEX, digest_of(FRAGMENT, payload), 0).key(), seal(FRAGMENT, payload))
        for words in (["restore", out, "--in-place"], ["verify"], ["cat", "evil"]):
            assert limited(words[0], enemy.root, *words[1:]).code == 4
    assert not (out / "evil").exists()


PACK_KIND = Kind(ord("P"))


def test_deeply_nested_things(enemy: Enemy, out: Path) -> None:
    """Where a reader ignores what it does not know, the unknown may be a hundred thousand lists within each other."""
    deep = b"\x91" * 300_000 + b"\xc0"
    row = msgspec.msgpack.encode(["f", b"a", 0, xxhash.xxh3_128_digest(b""), 0, b""])
    known = bytes([0xDC]) + (18).to_bytes(2, "big") + row[1:] + b"\xc0" * 5 + b"\xa0\xa0\xc4\x00\x90\xa0\x90" + deep
    enemy.site([known])
    for words in (["restore", out, "--in-place"], ["ls"], ["verify"]):
        assert limited(words[0], enemy.root, *words[1:]).code in (0, 4)
    enemy.snapshot(Ref(b"", enemy.object(NODE, b"\x92\x01" + deep), 0, 1, 0))
    assert limited("ls", enemy.root).code == 4
    enemy.put("index/" + hashlib.sha256(b"").hexdigest() + ".0", seal(FRAGMENT, deep))
    limited("verify", enemy.root)
    record = b'{"format":1,"x":' + b"[" * 400_000 + b"]" * 400_000
    enemy.put(record_key(1), record + b',"blake3":"' + blake3(record).hexdigest().encode() + b'"}\n')
    assert limited("ls", enemy.root).code == 4
    enemy.put("latest.json", b"[" * 4000)
    assert limited("ls", enemy.root).code == 4


def test_a_segment_full_of_the_smallest_entries(enemy: Enemy, out: Path) -> None:
    """Four megabytes are 400,000 folders: some memory, no more."""
    rows = [msgspec.msgpack.encode(["d", b"%06x/" % number]) for number in range(400_000)]
    rows = rows[: (4 << 20) // len(rows[0]) - 2]
    ref = enemy.segment(rows, b"000000/")
    enemy.snapshot(enemy.node(1, [ref]))
    assert limited("ls", enemy.root).code == 0


# -- the index ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tell",
    [
        lambda w: [w[0], w[1], struct.pack("<IIII", 7, 0, 0, 4)],
        lambda w: [w[0], w[1], struct.pack("<IIII", 0, 7, 0, 4)],
        lambda w: [w[0], w[1], struct.pack("<IIII", 0, 0, 2**32 - 1, 2**32 - 1)],
        lambda w: [w[0], w[1], struct.pack("<IIII", 0, 0, 1, 4)],
        lambda w: [w[0], w[1], struct.pack("<IIII", 0, 0, 0, 3)],
        lambda w: [w[0], w[1][:31], w[2]],
        lambda w: [w[0], w[1] * 2, w[2]],
        lambda w: [[[w[0][0][0], 0, w[0][0][2], [[-5, 10, 4]]]], w[1], w[2]],
        lambda w: [[[w[0][0][0], 0, w[0][0][2], [[0, -10, 4]]]], w[1], w[2]],
        lambda w: [[[w[0][0][0], 0, w[0][0][2], [[16, 2**62, 4]]]], w[1], w[2]],
        lambda w: [[[w[0][0][0], 0, 2**62, [[2**61, 10, 4]]]], w[1], w[2]],
        lambda w: [[[w[0][0][0], 0, 60 << 20, [[50 << 20, 100, 4]]]], w[1], w[2]],
        lambda w: [[[w[0][0][0], 0, w[0][0][2], [[16, 40, -4]]]], w[1], w[2]],
        lambda w: [[[b"short", 0, w[0][0][2], w[0][0][3]]], w[1], w[2]],
        lambda w: [[[w[0][0][0], -1, w[0][0][2], w[0][0][3]]], w[1], w[2]],
        lambda w: [[[w[0][0][0], 2**62, w[0][0][2], w[0][0][3]]], w[1], w[2]],
        lambda w: [[[w[0][0][0], 0, -1, w[0][0][3]]], w[1], w[2]],
        lambda w: [],
        lambda w: [None, None, None],
    ],
)
def test_a_fragment_that_lists_impossible_places(enemy: Enemy, out: Path, tell: Callable[[list[Any]], list[Any]]) -> None:
    enemy.chunks(b"evil", tell=tell)
    enemy.chunks(b"good" * 10)
    enemy.site([Folder(b""), file(b"evil", b"evil"), file(b"good", b"good" * 10)])
    done = limited("restore", enemy.root, out)
    assert done.code == 4, done
    assert (out / "good").read_bytes() == b"good" * 10
    assert not (out / "evil").exists()
    assert drafts(out) == []
    assert limited("verify", enemy.root).code == 4


# -- the log ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "members",
    [
        {"live": [[1, 10**12]]},
        {"live": [[1, 1]] * 10_000},
        {"live": [[0, 1]]},
        {"live": [[-5, 1]]},
        {"live": [["1", "1"]]},
        {"live": "all"},
        {"live": [[1]]},
        {"live": [[1.0, 1.0]]},
        {"prune": 1},
        {"prune": -1},
        {"prune": 10**30},
        {"kind": "prune", "dooms": None},
        {"kind": "prune"},
        {"kind": 5},
        {"time": "yesterday"},
        {"time": "2026-01-01T00:00:00"},
        {"started": 5},
        {"started": "9999-12-31T23:59:59+00:00"},
        {"manifest": None},
        {"manifest": {"blake3": "../../etc", "epoch": 0, "count": 1, "bytes": 0}},
        {"manifest": {"blake3": "00" * 32, "epoch": "../../x", "count": 1, "bytes": 0}},
        {"manifest": {"blake3": "00" * 32, "epoch": 10**20, "count": 1, "bytes": 0}},
        {"features": {"read": ["x\n" * 10]}},
        {"features": [1]},
        {"features": {"read": [{}]}},
        {"uuid": None},
        {"tags": 5},
        {"tags": [[]]},
        {"source": 7},
        {"totals": None},
        {"totals": {"entries": "x", "added": []}},
        {"problems": 1, "problem_count": "many"},
        {"filters": [1]},
        {"number": True},
    ],
    ids=lambda members: str(members)[:40],
)
def test_records_that_say_absurd_things(enemy: Enemy, out: Path, tmp_path: Path, members: dict[str, Any]) -> None:
    enemy.chunks(b"good")
    enemy.snapshot(enemy.node(1, [enemy.segment([Folder(b""), file(b"good", b"good")])]), **members)
    for words in (["snapshots"], ["ls"], ["restore", out], ["verify"], ["ls", "--at", "2026-11-11"], ["ls", "--at", "tag:x"]):
        limited(words[0], enemy.root, *words[1:])
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "good").write_bytes(b"good")
    done = limited("sync", tmp_path / "site", enemy.root)
    assert done.code in (0, 2, 4)


def test_a_log_of_a_million_million_records(enemy: Enemy, out: Path, tmp_path: Path) -> None:
    number = 10**12 - 1
    enemy.chunks(b"good")
    ref = enemy.node(1, [enemy.segment([Folder(b""), file(b"good", b"good")])])
    enemy.snapshot(ref, number, live=[[1, number]])
    for words in (["ls"], ["restore", out]):
        assert limited(words[0], enemy.root, *words[1:]).code == 0
    for words in (["snapshots"], ["verify"], ["ls", "--at", "2020-01-01"], ["ls", "--at", "tag:x"], ["ls", "--at", "17"]):
        assert limited(words[0], enemy.root, *words[1:]).code in (2, 4)
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "bad").write_bytes(b"bad")
    assert limited("sync", tmp_path / "site", enemy.root, "--max-delete", "9").code == 4


def test_a_uuid_that_is_a_path(enemy: Enemy, out: Path, tmp_path: Path, isolated: Path) -> None:
    """The cache folder is named by it."""
    enemy.site([Folder(b"")])
    body = json.loads((enemy.root / "mirror.json").read_bytes())
    for uuid in ("../../../evil", str(tmp_path / "evil"), "", "x" * 300, "a\0b"):
        for name in ("uuid", "site"):
            enemy.put("mirror.json", sealed_json(body | {name: uuid}))
            for words in (["restore", out], ["verify"]):
                assert limited(words[0], enemy.root, *words[1:]).code == 4
            assert limited("sync", tmp_path / "watched", enemy.root).code == 4
    assert not (tmp_path / "evil").exists()
    assert {found.parent.parent.name for found in isolated.rglob("state.sqlite")} <= {"verify"}


def test_names_that_speak_to_the_terminal(enemy: Enemy, out: Path) -> None:
    """No escape sequence of a name, a tag or a host reaches the operator's terminal."""
    evil = b"\x1b]0;owned\x07\r\x9b31m"
    enemy.snapshot(
        enemy.node(1, [enemy.segment([Folder(b""), file(b"a" + evil, b"evil"), Symlink(b"l", evil)])]),
        tags=[evil.decode("latin-1")],
        source={"host": evil.decode("latin-1"), "path": evil.decode("latin-1"), "site": "evil"},
        problems=[{"path": evil.decode("latin-1"), "kind": "x", "why": evil.decode("latin-1")}],
    )
    for words in (["restore", out], ["ls", "-l"], ["snapshots"], ["verify"], ["ls", "--at", "tag:\x1bx"], ["sync", out, "-n"]):
        ordered = [words[0], enemy.root, *words[1:]] if words[0] != "sync" else ["sync", out, enemy.root, "-n"]
        done = limited(*ordered)
        assert not {"\x1b", "\x07", "\r", "\x9b"} & {*done.out, *done.err}, done


def test_honest_limits(enemy: Enemy, out: Path) -> None:
    """What an enemy may not do an honest target of the same make can: the restrictions of these tests are not what stops them."""
    content = noise(3_000_000)
    ids = enemy.chunks(*(content[at : at + 50_000] for at in range(0, len(content), 50_000)))
    honest = File(b"good", len(content), xxhash.xxh3_128_digest(content), 0, b"".join(ids), None, BEGINNING, 0o644)
    enemy.site([Folder(b""), honest])
    assert limited("restore", enemy.root, out).code == 0
    assert (out / "good").read_bytes() == content
    assert limited("verify", enemy.root).code == 0
