"""From a site into packs: what one worker does with one batch of files.

Read, cut, identify, claim, compress, store. A batch function returns and tells only what is durable; contents never leave the
process. One pack is being filled while at most one other is on its way to the store, so a worker holds two packs and one
window.

A file that changes while it is read is read once more; if it changes again, what was read is kept (it is self-consistent:
fingerprint and chunks are of the same bytes) and reported. One that vanished or cannot be read leaves the previous version alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

import msgspec

from mirror.chunking import ChunkId, identify
from mirror.errors import NotFound
from mirror.index import StoredPack
from mirror.keys import PACK, ObjectName
from mirror.pack import PackBuilder
from mirror.site import Content, Site, SiteSpec
from mirror.site.open import open_site
from mirror.snapshot import create_named
from mirror.store import StoreSpec
from mirror.store.open import open_store
from mirror.store.wrap import CountingStore, Counts
from mirror.workers import Ask, Tell

CLAIM_BYTES = 4 << 20  # plain bytes held before their ids are asked for together
CLAIM_IDS = 4096
UNPROVEN_NS = 2_000_000_000
_UNPROVEN = (0, 0)


class Wanted(NamedTuple):
    """A file of a batch: its path and the chunk class."""

    path: bytes
    class_: int


class Job(NamedTuple):
    """What every batch of a run shares; picklable. epoch: of the run. level: zstd's."""

    site: SiteSpec
    store: StoreSpec
    epoch: int
    level: int = 3


class Fetched(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What became of one file. problem: kind of docs/events.md or empty; `changed` comes with content, all others without.

    chunks: joined ids. read: bytes read for it (twice when it changed)."""

    path: bytes
    size: int = 0
    mtime: int | None = None
    validator: tuple[int, int] = _UNPROVEN
    fingerprint: bytes = b""
    class_: int = 0
    chunks: bytes = b""
    read: int = 0
    problem: str = ""
    why: str = ""

    @property
    def has_content(self) -> bool:
        return self.problem in ("", "changed")


_encoder = msgspec.msgpack.Encoder()
_wanted = msgspec.msgpack.Decoder(list[Wanted])


class Outcome(NamedTuple):
    """What a batch did: (path, encoded Fetched) a file, bytes read, chunks and plain bytes that were new, requests by kind.
    staged: bytes written as drafts of a tree (stage.py)."""

    files: list[tuple[bytes, bytes]]
    read: int
    new_chunks: int
    new_bytes: int
    counts: Counts
    staged: int = 0


@lru_cache(maxsize=2)
def _site(spec: SiteSpec) -> Site:
    return open_site(spec)


@lru_cache(maxsize=2)
def _store(spec: StoreSpec) -> CountingStore:
    return CountingStore(open_store(spec))


def ready(site: SiteSpec, store: StoreSpec) -> None:
    """Open what batches of such a job will use: clients of a store take 0.1 s and more to load."""
    _site(site)
    _store(store)


def release() -> None:
    """Give back what batches in this process have opened: another run may have other credentials, and a mount stays busy."""
    _site.cache_clear()
    _store.cache_clear()


@dataclass
class _Filler:
    """Chunks that wait for their claim, the pack being filled, and the pack on its way."""

    ask: Ask
    tell: Tell
    job: Job
    store: CountingStore
    pool: ThreadPoolExecutor
    pending: list[tuple[ChunkId, bytes | memoryview]] = field(default_factory=list)
    pending_bytes: int = 0
    seen: set[ChunkId] = field(default_factory=set)
    builder: PackBuilder | None = None
    flying: Future[StoredPack] | None = None
    new_chunks: int = 0
    new_bytes: int = 0

    def add(self, id_: ChunkId, data: bytes | memoryview) -> None:
        if id_ in self.seen:
            return
        self.seen.add(id_)
        self.pending.append((id_, data))
        self.pending_bytes += len(data)
        if self.pending_bytes >= CLAIM_BYTES or len(self.pending) >= CLAIM_IDS:
            self.claim()

    def claim(self) -> None:
        """Ask which of the pending chunks are ours to store, and pack those."""
        if not self.pending:
            return
        mask = self.ask([id_ for id_, _ in self.pending])
        for (id_, data), ours in zip(self.pending, mask, strict=True):
            if ours:
                self.new_chunks += 1
                self.new_bytes += len(data)
                if self.builder is None:
                    self.builder = PackBuilder(self.job.level)
                self.builder.add(id_, data)
                if self.builder.full:
                    self.send()
        self.pending, self.pending_bytes = [], 0

    def send(self) -> None:
        """Close the pack and begin to store it, after the one before has landed."""
        if self.builder is None or self.builder.empty:
            return
        pack = self.builder.finish()
        self.builder = None
        self.land()
        name = ObjectName(PACK, pack.digest, self.job.epoch)

        def store() -> StoredPack:
            create_named(self.store, name, pack.data)
            return StoredPack(name, len(pack.data), pack.blocks)

        self.flying = self.pool.submit(store)

    def land(self) -> None:
        """Wait until the pack on its way is durable, and say so."""
        if self.flying is not None:
            flying, self.flying = self.flying, None
            self.tell(flying.result())

    def finish(self) -> None:
        self.claim()
        self.send()
        self.land()


def packed(files: list[Wanted]) -> bytes:
    """Files as `run_batch` takes them: pickled one by one they cost five times as much."""
    return _encoder.encode(files)


def run_batch(ask: Ask, tell: Tell, job: Job, files: bytes) -> Outcome:
    """Bring the content of these files into the store. ask(ids) → a byte an id (1: ours to store); tell(StoredPack) once it is
    durable.

    Idempotent: run again, it claims and stores the same. Errors of the store end the batch; those of a file are its result.
    """
    site, store = _site(job.site), _store(job.store)
    before = store.counts
    with ThreadPoolExecutor(1) as pool:
        filler = _Filler(ask, tell, job, store, pool)
        results = [fetch(site, wanted.path, wanted.class_, lambda content: filler.add) for wanted in _wanted.decode(files)]
        filler.finish()
    return Outcome(encoded(results), sum(r.read for r in results), filler.new_chunks, filler.new_bytes, store.counts - before)


def read_batch(ask: Ask, tell: Tell, job: Job, files: bytes) -> Outcome:
    """Read and identify these files, store nothing."""
    site = _site(job.site)
    results = [fetch(site, wanted.path, wanted.class_, lambda content: _dropped) for wanted in _wanted.decode(files)]
    return Outcome(encoded(results), sum(r.read for r in results), 0, 0, Counts())


def _dropped(id_: ChunkId, data: bytes | memoryview) -> None:
    """Only the ids count here."""


def encoded(results: list[Fetched]) -> list[tuple[bytes, bytes]]:
    """Results as an outcome carries them."""
    return [(result.path, _encoder.encode(result)) for result in results]


Take = Callable[[ChunkId, bytes | memoryview], None]


def fetch(site: Site, path: bytes, class_: int, begin: Callable[[Content], Take]) -> Fetched:
    """Read one file of a site; what became of it. begin(content) is called before it is read, and again before it is read once
    more; it gives what takes each chunk. OSErrors count as the file's own: `begin` and what it gives must raise others."""
    read = 0
    for attempt in (1, 2):
        try:
            content = site.open(path)
        except NotFound:
            return Fetched(path, problem="vanished", why="it was gone when it was to be read", read=read)
        except OSError as error:
            return Fetched(path, problem="unreadable", why=error.strerror or str(error), read=read)
        with content.stream:
            began = time.time_ns()
            try:
                size, fingerprint, chunks = identify(content.stream.read, content.size, class_, begin(content))
                changed = site.recheck(path, content)
            except OSError as error:
                return Fetched(path, problem="unreadable", why=error.strerror or str(error), read=read)
        read += size
        if not changed and size != content.size:
            changed = f"it had {content.size} bytes and gave {size}"
        if not changed or attempt == 2:
            break
    newest = max(content.mtime or 0, content.validator[1])
    proven = not changed and began - newest > UNPROVEN_NS
    validator = content.validator if proven else _UNPROVEN
    return Fetched(path, size, content.mtime, validator, fingerprint, class_, chunks, read, "changed" if changed else "", changed)
