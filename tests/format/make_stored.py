"""How tests/format/v1/ was made, on the day that version 1 was fixed. It is kept to be read; running it again makes another mirror.

    PYTHONPATH=.:tests python tests/format/make_stored.py FOLDER

The mirror in FOLDER/mirror has two snapshots of a folder (1, 2), one of pages and redirects written by hand (3), a record of a
kind and with members that nobody knows (4), a prune that dooms a fragment which lies (5), and one more snapshot after it (6).
Snapshot 2 is forgotten. FOLDER/expected.json says what the snapshots 1 and 6 hold.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from mirrors import BEGINNING, ODD_NAMES, mirror, noise, settle, target_in, tree, write
from xxhash import xxh3_128_digest

from mirror import log
from mirror.chunking import chunk_id
from mirror.envelope import FRAGMENT, digest_of, seal
from mirror.index import StoredPack, encode_fragments
from mirror.keys import INDEX, PACK, ObjectName
from mirror.manifest import Entry, Page, Redirect, cut_entries
from mirror.pack import Pack, PackBuilder
from mirror.snapshot import ManifestWriter
from mirror.store.fs import FolderStore

LIES = b"these are not the bytes that the fragment says"


def make_site(root: Path) -> None:
    """Small in bytes, whole in kinds: a file of more than 64 chunks that repeats itself, links of both kinds, odd names."""
    for name in ODD_NAMES:
        write(Path(os.fsdecode(os.path.join(bytes(root), b"odd", name))), name * 50)
    write(root / "index.html", b"<h1>Version 1</h1>\n" * 20)
    write(root / "long.bin", noise(30_000) * 60)
    write(root / "random.bin", noise(20_000, 1))
    write(root / "empty", b"")
    os.link(root / "index.html", root / "same.html")
    (root / "link").symlink_to("odd")
    (root / "hollow").mkdir()
    os.chmod(root / "odd", 0o750)
    os.chmod(root / "random.bin", 0o600)
    settle(root)


def store_pack(store: FolderStore, parts: list[bytes]) -> tuple[StoredPack, Pack]:
    """A pack with these chunks, durable."""
    builder = PackBuilder()
    for part in parts:
        builder.add(chunk_id(part), part)
    pack = builder.finish()
    name = ObjectName(PACK, pack.digest, 0)
    store.create(name.key(), pack.data)
    return StoredPack(name, len(pack.data), pack.blocks), pack


def store_fragment(store: FolderStore, pack: StoredPack) -> str:
    """The fragment that lists the pack; its key."""
    (payload,) = encode_fragments([pack])
    key = ObjectName(INDEX, digest_of(FRAGMENT, payload), 0).key()
    store.create(key, seal(FRAGMENT, payload))
    return key


def append(store: FolderStore, uuid: str, kind: str, live: list[int], **members: Any) -> log.Record:
    """A record behind the head."""
    record = log.append(store, log.draft(kind, uuid, log.read_head(store), live, **members))
    assert isinstance(record, log.Record)
    return record


def pages(body: bytes) -> list[Entry]:
    """Entries of a web site."""
    content = (len(body), xxh3_128_digest(body), 0, chunk_id(body))
    headers = (("Cache-Control", "max-age=60"), ("Content-Type", "text/html; charset=utf-8"))
    links = ("https://example.org/old", "https://example.org/style.css")
    return [
        Page(b"index.html", "https://example.org/", 200, *content, mtime=BEGINNING, etag='"33a64df5"', media_type="text/html",
             last_modified="Fri, 20 Nov 2026 02:00:07 GMT", headers=headers, links=links, blanked=xxh3_128_digest(b"blanked")),
        Redirect(b"old", "https://example.org/old", 301, "https://example.org/", BEGINNING),
    ]  # fmt: skip


def snapshot_of_pages(store: FolderStore, uuid: str) -> None:
    """Snapshot 3."""
    body = b"<title>A page</title>\n" * 30
    stored, _ = store_pack(store, [body])
    store_fragment(store, stored)
    writer = ManifestWriter(store, 0, {})
    root = writer.tree(
        (writer.put(kind, piece) for kind, piece in ((ord("S"), p) for p in cut_entries(pages(body)))), root_is_node=True
    )
    time = "2026-11-20T02:00:07.000Z"
    totals = {"entries": 2, "bytes": len(body), "added": 2, "changed": 0, "deleted": 0, "moved": 0, "described": 0}
    append(store, uuid, log.SNAPSHOT, [1, 2, 3], source={"site": "www", "url": "https://example.org/"}, started=time, finished=time,
           tags=["pages"], filters=[], manifest=log.ref_json(root), changes=None, totals=totals, complete=True, problems=[],
           problem_count=0, parents=[2])  # fmt: skip


def prune_a_lie(store: FolderStore, uuid: str, victim: bytes) -> None:
    """Records 4 and 5: a fragment says that the chunk `victim` is where it is not, and is doomed."""
    append(store, uuid, "weather", [1, 2, 3], forecast={"tomorrow": ["rain", None, 1.5]})
    stored, _ = store_pack(store, [LIES])
    block = stored.blocks[0]
    key = store_fragment(store, stored._replace(blocks=[block._replace(ids=[chunk_id(victim)])]))
    names = ManifestWriter(store, 0, {}).names([key, stored.name.key()])
    append(store, uuid, log.PRUNE, [1, 3], dooms=log.ref_json(names))


def expected(folder: Path, nights: dict[int, Any]) -> None:
    """What is in the live snapshots, as JSON."""
    lines = {n: {path.decode("latin-1"): list(item) for path, item in night.items()} for n, night in nights.items()}
    (folder / "expected.json").write_text(json.dumps(lines, indent=1, sort_keys=True) + "\n")


def make(folder: Path) -> None:
    """All of it."""
    site, target = folder / "site", target_in(folder, "mirror")
    site.mkdir(parents=True)
    make_site(site)
    mirror(site, target, tags=("first",))
    first = tree(site)
    write(site / "index.html", b"<h1>Version 1, second night</h1>\n" * 20, BEGINNING + 1)
    settle(site)
    mirror(site, target)
    store = FolderStore(target.store.url)
    head = log.read_head(store)
    assert head
    uuid = str(head.body["target"])
    snapshot_of_pages(store, uuid)
    prune_a_lie(store, uuid, b"latin-\xe9.html" * 50)
    (site / "empty").unlink()
    settle(site)
    mirror(site, target)
    expected(folder, {1: first, 6: tree(site)})


if __name__ == "__main__":
    make(Path(sys.argv[1]))
