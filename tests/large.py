"""Targets of any size, made without a site: objects and a record as a sync would have written them.

number = enlarge(folder, 300_000)     one more snapshot, of so many pages in folders of a hundred
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from byhand import appended, head_of
from xxhash import xxh3_128_digest

from mirror import log
from mirror.chunking import chunk_id
from mirror.envelope import FRAGMENT, SEGMENT, digest_of, seal
from mirror.index import StoredPack, encode_fragments
from mirror.keys import INDEX, PACK, ObjectName
from mirror.manifest import Entry, File, Folder, cut_entries
from mirror.pack import PackBuilder
from mirror.snapshot import ManifestWriter
from mirror.store.fs import FolderStore


def page(number: int) -> bytes:
    """The content of a page."""
    return b"<h1>page %d</h1>" % number


def path_of(number: int) -> bytes:
    """Its path; in the order of numbers."""
    return b"pages/%05d/%02d.html" % divmod(number, 100)


def enlarge(folder: Path, entries: int) -> int:
    """A snapshot of so many pages, and nothing else, in a packed target that has one already; its number."""
    store = FolderStore(str(folder))
    writer = ManifestWriter(store, 0, {})
    packer = _Packer(store)
    pieces = cut_entries(_entries(entries, packer))
    root = writer.tree((writer.put(SEGMENT, piece) for piece in pieces), root_is_node=True)
    packer.finish()
    before = head_of(store)
    members = {name: before.body[name] for name in ("started", "source", "totals", "complete") if name in before.body}
    record = appended(store, log.SNAPSHOT, before.live.plus(before.number + 1), **members, manifest=log.ref_json(root))
    return record.number


def _entries(count: int, packer: _Packer) -> Iterator[Entry]:
    yield Folder(b"", 0, 0o755)
    start = b"<h1>start</h1>"
    yield File(b"index.html", len(start), xxh3_128_digest(start), 0, packer.add(start), mtime=10**18)
    yield Folder(b"pages/", 0, 0o755)
    for number in range(count):
        if not number % 100:
            yield Folder(path_of(number)[:-7], 0, 0o755)
        data = page(number)
        yield File(path_of(number), len(data), xxh3_128_digest(data), 0, packer.add(data), mtime=10**18 + number)


class _Packer:
    """Packs and fragments as they fill."""

    def __init__(self, store: FolderStore) -> None:
        self._store, self._builder = store, PackBuilder(level=1)
        self._packs: list[StoredPack] = []

    def add(self, data: bytes) -> bytes:
        id_ = chunk_id(data)
        self._builder.add(id_, data)
        if self._builder.full:
            self.finish()
        return id_

    def finish(self) -> None:
        pack = self._builder.finish()
        name = ObjectName(PACK, pack.digest, 0)
        self._store.create(name.key(), pack.data)
        for payload in encode_fragments([StoredPack(name, len(pack.data), pack.blocks)]):
            self._store.create(ObjectName(INDEX, digest_of(FRAGMENT, payload), 0).key(), seal(FRAGMENT, payload))
        self._builder = PackBuilder(level=1)
