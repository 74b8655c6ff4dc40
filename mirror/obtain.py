"""Content for a live tree that is not staged: after a run that died, or when a live file went away that was only to be described.

Asked in turn: the site, if this run has it at hand and it still is what the record says; packs; live files that the manifests
around say hold the same. Every byte is proved by the chunk ids of the entry before the draft is one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from mirror.chunking import ChunkId, identify
from mirror.compare import same_list
from mirror.errors import MirrorError, NotFound
from mirror.manifest import Entry, File
from mirror.publish_folder import description
from mirror.site import Site
from mirror.site.files import FolderSite
from mirror.site.live import LiveTree
from mirror.site.writing import write_at
from mirror.steps import Works
from mirror.transfer import fetch

Pairs = Callable[[], Iterable[tuple[Entry | None, Entry | None]]]


@dataclass
class Obtain:
    """Makes drafts in a live folder. site: the source, None for a verb that has none; others: (before, after) of what is being
    published."""

    works: Works
    live: LiveTree
    site: Site | None
    others: Pairs
    _live: FolderSite = field(init=False)

    def __post_init__(self) -> None:
        self._live = FolderSite(self.live.root)
        self._copies: dict[bytes, list[bytes]] | None = None

    def __call__(self, entry: File) -> bool:
        """Make the draft of a file; False when its content can be had from nowhere."""
        if self.site is not None and self._from_site(self.site, entry.path, entry):
            return True
        return self._from_packs(entry) or any(self._from_site(self._live, path, entry) for path in self._same(entry))

    def _from_site(self, site: Site, path: bytes, entry: File) -> bool:
        try:
            content = site.open(path)
        except (NotFound, OSError, MirrorError):
            return False
        with content.stream:
            if content.size != entry.size:
                return False
            fd = self.live.staging.begin_apart(entry.path)
            try:
                at = 0

                def take(id_: ChunkId, data: bytes | memoryview) -> None:
                    nonlocal at
                    write_at(fd, data, at)
                    at += len(data)

                size, fingerprint, joined = identify(content.stream.read, content.size, entry.class_, take)
                if size != entry.size or fingerprint != entry.fingerprint or not same_list(entry, joined):
                    return False
                self._finish(fd, entry)
            finally:
                os.close(fd)
        return True

    def _from_packs(self, entry: File) -> bool:
        works = self.works
        fd = self.live.staging.begin_apart(entry.path)
        try:
            at = 0
            for chunk in fetch.contents(works.target.store, works.index, works.reader.chunk_ids(entry)):
                write_at(fd, chunk, at)
                at += len(chunk)
            if at != entry.size:
                return False
            self._finish(fd, entry)
        except (fetch.Unreadable, MirrorError, NotFound):
            return False
        finally:
            os.close(fd)
        return True

    def _finish(self, fd: int, entry: File) -> None:
        works = self.works
        self.live.writer.describe(fd, description(entry, works.owners))
        self.live.settle()
        self.live.staging.complete(entry.path)

    def _same(self, entry: File) -> Iterator[bytes]:
        """Live files that may hold the same. Looked for only here, where everything else has failed."""
        key = self.works.reader.content_key
        if self._copies is None:
            self._copies = {}
            for pair in self.others():
                for other in pair:
                    if isinstance(other, File) and other.size:
                        self._copies.setdefault(key(other), []).append(other.path)
        yield from self._copies.get(key(entry), ()) if entry.size else ()
