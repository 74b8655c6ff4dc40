"""Sites and mirrors of them for tests: a site with everything that is awkward, and what really is in a folder.

The truth about a folder is asked of the system itself, never of what is tested.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import stat
from pathlib import Path
from typing import Any, NamedTuple

from mirror import log
from mirror.chunking import chunk_id
from mirror.envelope import FRAGMENT, digest_of, seal
from mirror.errors import DamageError
from mirror.index import StoredPack, encode_fragments
from mirror.keys import INDEX, PACK, ObjectName
from mirror.making import Making
from mirror.pack import Block, Slot, read_footer, scan_blocks
from mirror.site import SiteSpec
from mirror.snapshot import ManifestWriter
from mirror.store import StoreSpec
from mirror.store.memory import MemoryStore
from mirror.sync import SyncOptions, SyncReport, sync
from mirror.target import TargetSpec

BEGINNING = 1_700_000_000_123_456_789  # ns; a time long past, so that no file is taken for one that is being written
ODD_NAMES = (
    b"with space",
    b"new\nline",
    b"latin-\xe9.html",
    b"-rf",
    "naïve.txt".encode(),
    b"a-b",
    b"a.b",
    b"back\\slash",
    b"~",
    b"0",
)


class Item(NamedTuple):
    """One path of a folder as the system has it. content: BLAKE2 of a file's bytes, a link's target. group: the first path of its
    hard links."""

    kind: str
    mode: int
    mtime: int
    content: str
    group: str = ""


def noise(size: int, seed: int = 0) -> bytes:
    """Bytes that no compressor can shrink, the same for ever."""
    return random.Random(seed).randbytes(size)


def write(path: Path, data: bytes, mtime: int = BEGINNING) -> None:
    """A file with a time, and the folders above it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    os.utime(path, ns=(mtime, mtime))


def make_site(root: Path, seed: int = 0) -> Path:
    """A small site (3 MiB) with odd names, links of both kinds, empty and deep folders, a file of more than 64 chunks."""
    root.mkdir(parents=True)
    write(root / "index.html", b"<h1>hello</h1>\n")
    write(root / "big.bin", noise(2_000_000, seed))
    write(root / "zeros", bytes(300_000))
    write(root / "empty", b"")
    for number in range(40):
        write(root / "pages" / f"page-{number:02}.html", f"<p>{number} {seed}</p>\n".encode() * (number + 1), BEGINNING + number)
    for name in ODD_NAMES:
        write(Path(os.fsdecode(os.path.join(bytes(root), b"odd", name))), name)
    write(root / "a" / "b" / "c" / "d" / "deep", b"deep")
    (root / "hollow" / "er").mkdir(parents=True)
    write(root / "one", b"linked " * 3000)
    os.link(root / "one", root / "pages" / "two")
    os.link(root / "one", root / "three")
    (root / "link").symlink_to("pages/page-01.html")
    (root / "broken").symlink_to("/nowhere/at all")
    os.chmod(root / "index.html", 0o640)
    os.chmod(root / "pages", 0o750)
    settle(root)
    return root


def settle(root: Path) -> None:
    """Give every folder and link below (and the root) the same old time."""
    for folder, folders, files in os.walk(bytes(root), topdown=False):
        for name in [*folders, *files]:
            path = os.path.join(folder, name)
            if os.path.islink(path) or os.path.isdir(path):
                os.utime(path, ns=(BEGINNING, BEGINNING), follow_symlinks=False)
    os.utime(root, ns=(BEGINNING, BEGINNING))


def tree(root: Path) -> dict[bytes, Item]:
    """Everything in a folder, by path; a folder's path ends in `/`, the root's is empty."""
    found: dict[bytes, Item] = {}
    groups: dict[tuple[int, int], list[bytes]] = {}
    base = bytes(root)
    for folder, folders, files in os.walk(base):
        relative = os.path.relpath(folder, base)
        prefix = b"" if relative == b"." else relative + b"/"
        found[prefix] = _item(folder)
        for name in [*files, *folders]:
            path = os.path.join(folder, name)
            if name in folders and not os.path.islink(path):
                continue
            found[prefix + name] = _item(path)
            seen = os.lstat(path)
            if seen.st_nlink > 1:
                groups.setdefault((seen.st_dev, seen.st_ino), []).append(prefix + name)
    for paths in groups.values():
        for path in paths:
            found[path] = found[path]._replace(group=min(paths).decode("latin-1"))
    return found


def _item(path: bytes) -> Item:
    seen = os.lstat(path)
    mode = stat.S_IMODE(seen.st_mode)
    if stat.S_ISLNK(seen.st_mode):
        return Item("link", 0, seen.st_mtime_ns, os.readlink(path).decode("latin-1"))
    if stat.S_ISDIR(seen.st_mode):
        return Item("folder", mode, seen.st_mtime_ns, "")
    return Item("file", mode, seen.st_mtime_ns, hashlib.blake2b(Path(os.fsdecode(path)).read_bytes(), digest_size=16).hexdigest())


def target_in(folder: Path, name: str = "target", cache: bool = True) -> TargetSpec:
    """A target in a folder, with a cache beside it."""
    return TargetSpec(StoreSpec(str(folder / name)), folder / "cache" if cache else None)


def in_memory(name: str) -> tuple[TargetSpec, MemoryStore]:
    """A target in memory without a cache, and its objects."""
    return TargetSpec(StoreSpec(f"memory://{name}")), MemoryStore.named(name)


def mirror(source: Path, target: TargetSpec, **options: Any) -> SyncReport:
    """A sync that may make the target; it must have had no problems."""
    report = sync(SiteSpec(str(source)), target, SyncOptions(**({"making": Making("packed", "www"), "workers": 0} | options)))
    assert report.problems == []
    return report


def three_nights(folder: Path, target: TargetSpec) -> list[dict[bytes, Item]]:
    """A site in `folder`/site mirrored three times with edits between; what was there each time. Snapshots 1, 2, 3."""
    site = make_site(folder / "site")
    nights = []
    mirror(site, target)
    nights.append(tree(site))
    write(site / "index.html", b"<h1>second night</h1>\n", BEGINNING + 1)
    write(site / "pages" / "new.html", b"<p>new</p>\n")
    (site / "pages" / "page-07.html").unlink()
    (site / "zeros").rename(site / "a" / "moved zeros")
    settle(site)
    mirror(site, target, tags=("second",))
    nights.append(tree(site))
    shutil.rmtree(site / "odd")
    write(site / "big.bin", noise(1_000_000) + b"inserted" + noise(1_000_000, 1), BEGINNING + 2)
    settle(site)
    mirror(site, target)
    nights.append(tree(site))
    return nights


def appended(store: MemoryStore, body: dict[str, Any]) -> log.Record:
    """The record, appended; nobody else may be there."""
    record = log.append(store, body)
    assert isinstance(record, log.Record)
    return record


def repacked(store: MemoryStore, uuid: str) -> None:
    """What a prune that repacks does: each pack and fragment once more under a new epoch, the record, then the deletions."""
    head = log.read_head(store)
    assert head
    epoch, old = head.number + 1, [key for key in store.objects if key.startswith(("packs/", "index/"))]
    fresh = []
    for key in old:
        if key.startswith("packs/"):
            data = store.objects[key]
            name = ObjectName(PACK, bytes.fromhex(key[9:73]), epoch)
            store.create(name.key(), data)
            blocks = []
            for line, (_, block) in zip(read_footer(data, key), scan_blocks(data, key), strict=True):
                assert not isinstance(block, DamageError)
                ids = [chunk_id(chunk) for chunk in block.chunks()]
                blocks.append(Block(Slot(line.offset, line.stored, line.plain), ids, line.lengths))
            fresh.append(StoredPack(name, len(data), blocks))
    for payload in encode_fragments(fresh):
        store.create(ObjectName(INDEX, digest_of(FRAGMENT, payload), epoch).key(), seal(FRAGMENT, payload))
    names = ManifestWriter(store, head.epoch, {}).names(old)
    appended(store, log.draft(log.PRUNE, uuid, head, list(head.live), dooms=log.ref_json(names)))
    store.delete(old)
