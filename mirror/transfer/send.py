"""The coordinator of a transfer up: a plan's files to batches, batches to workers, their packs to index fragments.

Owns the claims, the limits of a run and its checkpoints. Every 30 s or 128 MiB the packs that are durable by then are listed in an
index fragment and the files of finished batches are remembered on this host, so a run that dies redoes little: the next one
finds its chunks in the index and, where the site's file is still the same, does not read it again.

All shared state is touched by the calling thread only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec

from mirror.envelope import FRAGMENT, digest_of, seal
from mirror.errors import DurationLimitError, TransferLimitError
from mirror.events import Advanced, BatchPlanned, BatchSent, BatchStored, Job
from mirror.index import FRAGMENT_CHUNKS, StoredPack, encode_fragments, other_bytes
from mirror.keys import INDEX, ObjectName
from mirror.lookup import ChunkIndex
from mirror.plan import Fetch, Item, batches
from mirror.snapshot import create_named
from mirror.spool import Sorter
from mirror.state import State
from mirror.store import WritableStore
from mirror.store.wrap import Counts
from mirror.transfer import up
from mirror.workers import Crew

CHECKPOINT_SECONDS = 30.0
CHECKPOINT_BYTES = 128 << 20
_RESUME_ASK = 512

_encoder = msgspec.msgpack.Encoder()
_fetched = msgspec.msgpack.Decoder(up.Fetched)


def decode_fetched(data: bytes) -> up.Fetched:
    """A file's result as the sorter of results holds it."""
    result: up.Fetched = _fetched.decode(data)
    return result


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a run stops: bytes stored, and the monotonic time of its end; None for no limit."""

    transfer: int | None = None
    deadline: float | None = None


@dataclass
class Sent:
    """What a transfer did. read: bytes read of the site; new_*: chunks and plain bytes that the target did not have; stored: bytes
    of packs; resumed: files that an interrupted run had read; requests: of the workers; written: keys created."""

    read: int = 0
    new_chunks: int = 0
    new_bytes: int = 0
    stored: int = 0
    resumed: int = 0
    requests: Counts = field(default_factory=Counts)
    written: list[str] = field(default_factory=list)


class BatchJob(Protocol):
    """What every batch of a transfer shares; picklable."""

    @property
    def epoch(self) -> int:
        """Of the run."""
        ...


@dataclass(frozen=True, slots=True)
class Way:
    """What is done with the files of a batch: `function` (ask, tell, job, files), what it wants to know of each file, and as what a
    list of that is handed to it. kept:
    which results of an interrupted run still hold (None: those whose chunks the target has). settle: makes durable what finished
    batches wrote beside the store; called in a thread while batches go on, None: there is nothing."""

    function: Callable[..., up.Outcome] = up.run_batch
    wanted: Callable[[Fetch], Any] = lambda item: up.Wanted(item.entry.path, item.entry.class_)
    packed: Callable[[list[Any]], Any] = up.packed
    kept: Callable[[up.Fetched], bool] | None = None
    settle: Callable[[], None] | None = None


@dataclass
class Sender:
    """One transfer. `results` gets a record for every Fetch of the plan, by path."""

    store: WritableStore
    state: State
    index: ChunkIndex
    batch_job: BatchJob
    source: str
    crew: Crew
    job: Job
    limits: Limits
    results: Sorter
    resume: bool = True
    way: Way = Way()
    sent: Sent = field(default_factory=Sent)
    _packs: list[StoredPack] = field(default_factory=list)
    _pack_bytes: int = 0
    _pack_chunks: int = 0
    _finished: list[bytes] = field(default_factory=list)
    _checkpoint: float = field(default_factory=time.monotonic)
    _sizes: dict[int, tuple[int, int]] = field(default_factory=dict)
    _durable: dict[int, int] = field(default_factory=dict)
    _settler: ThreadPoolExecutor | None = None
    _settling: tuple[Future[None], list[bytes]] | None = None  # results of files that are being made durable

    def run(self, items: Iterable[Item]) -> Sent:
        """Read and store what the plan says. On any exception, Ctrl-C too, what is durable is written down first."""
        try:
            tasks = ((self.batch_job, files) for files in self._batches(self._unresumed(items)))
            outcomes = self.crew.run(
                self.way.function,
                tasks,
                on_ask=lambda number, ids: self.index.claim(ids, number),
                on_tell=self._stored,
                on_begin=self._begin,
            )
            for number, outcome in outcomes:
                self._done(number, outcome)
        except BaseException:
            self.checkpoint(remember=True)
            raise
        self.checkpoint(remember=False)
        return self.sent

    # -- batches -------------------------------------------------------------------------------------------------

    def _unresumed(self, items: Iterable[Item]) -> Iterator[Fetch]:
        """The files to read; those that an interrupted run has read and stored go straight to the results."""
        if not (self.resume and self.state.has_found(self.source)):
            yield from (item for item in items if type(item) is Fetch)
            return
        held: list[tuple[Fetch, up.Fetched | None]] = []
        for item in items:
            if type(item) is not Fetch:
                continue
            entry = item.entry
            data = self.state.found(self.source, entry.path, entry.size, entry.mtime or 0, item.validator)
            held.append((item, decode_fetched(data) if data else None))
            if len(held) >= _RESUME_ASK:
                yield from self._settle(held)
                held = []
        yield from self._settle(held)

    def _settle(self, held: list[tuple[Fetch, up.Fetched | None]]) -> Iterator[Fetch]:
        ids = {f.chunks[at : at + 32] for _, f in held if f for at in range(0, len(f.chunks), 32)}
        known = self.index.reuse(list(ids)) if self.way.kept is None else set()
        for item, found in held:
            if found and (self.way.kept(found) if self.way.kept else _all_in(found.chunks, known)):
                self.results.add(found.path, _encoder.encode(found))
                self.sent.resumed += 1
                self.job.say(Advanced(1, found.size))
            else:
                yield item

    def _batches(self, fetches: Iterable[Fetch]) -> Iterator[Any]:
        files: list[Any] = []
        size = 0
        number = 0
        for item in fetches:
            files.append(self.way.wanted(item))
            size += item.entry.size
            if batches(size, len(files)):
                yield self._planned(number, files, size)
                files, size, number = [], 0, number + 1
        if files:
            yield self._planned(number, files, size)

    def _planned(self, number: int, files: list[Any], size: int) -> Any:
        self._sizes[number] = (len(files), size)
        self.job.say(BatchPlanned(number, len(files), size))
        self._within_limits()
        return self.way.packed(files)

    def _within_limits(self) -> None:
        limits = self.limits
        if limits.transfer is not None and self.sent.stored >= limits.transfer:
            raise TransferLimitError(
                "stopped: --max-transfer is reached",
                why=f"{self.sent.stored} bytes were stored",
                hint="the next run goes on from here",
            )
        if limits.deadline is not None and time.monotonic() >= limits.deadline:
            raise DurationLimitError("stopped: --max-duration is reached", hint="the next run goes on from here")

    # -- what workers say ----------------------------------------------------------------------------------------

    def _begin(self, number: int) -> None:
        self.job.say(BatchSent(number))

    def _stored(self, number: int, pack: StoredPack) -> None:
        self._packs.append(pack)
        self.sent.stored += pack.size
        self.sent.written.append(pack.name.key())
        self._durable[number] = self._durable.get(number, 0) + pack.size
        self._pack_chunks += sum(len(block.ids) for block in pack.blocks)
        self._pack_bytes += sum(block.slot.plain for block in pack.blocks)
        self._checkpoint_if_due()

    def _done(self, number: int, outcome: up.Outcome) -> None:
        sent = self.sent
        for path, data in outcome.files:
            self.results.add(path, data)
            self._finished.append(data)
        sent.read += outcome.read
        sent.new_chunks += outcome.new_chunks
        sent.new_bytes += outcome.new_bytes
        sent.stored += outcome.staged
        self._pack_bytes += outcome.staged
        sent.requests += outcome.counts
        files, size = self._sizes.pop(number)
        self.job.say(BatchStored(number, self._durable.pop(number, 0)))
        self.job.say(Advanced(files, size))
        self._checkpoint_if_due()

    # -- checkpoints ---------------------------------------------------------------------------------------------

    def _checkpoint_if_due(self) -> None:
        late = time.monotonic() - self._checkpoint >= CHECKPOINT_SECONDS
        if late or self._pack_bytes >= CHECKPOINT_BYTES or self._pack_chunks >= FRAGMENT_CHUNKS // 2:
            self._list_packs()
            if self.way.settle is None:
                self._remember()
            else:
                self._settle_meanwhile(self.way.settle)
            self._checkpoint = time.monotonic()

    def checkpoint(self, *, remember: bool) -> None:
        """List the durable packs in fragments, then remember the files of finished batches on this host."""
        self._list_packs()
        self._settled(wait=True)
        if remember and self.resume and self._finished and self.way.settle:
            self.way.settle()
        if remember:
            self._remember()
        self._checkpoint = time.monotonic()

    def _list_packs(self) -> None:
        for payload in encode_fragments(self._packs):
            name = ObjectName(INDEX, digest_of(FRAGMENT, payload), self.batch_job.epoch)
            while name.key() in self.index.damaged:
                payload = other_bytes(payload)
                name = ObjectName(INDEX, digest_of(FRAGMENT, payload), self.batch_job.epoch)
            create_named(self.store, name, seal(FRAGMENT, payload))
            self.sent.written.append(name.key())
            self.index.written.add(name.key())
            # Not into this host's index: claims cover this run, and a later one that has something to look up fetches the fragment.
        self._packs, self._pack_bytes, self._pack_chunks = [], 0, 0

    def _settle_meanwhile(self, settle: Callable[[], None]) -> None:
        """Have what finished batches wrote made durable while others go on: a syncfs of 128 MiB took 0.2 to 0.7 s, in which no
        worker that was done got its next batch. The files are remembered at a later checkpoint, when it is over."""
        self._settled(wait=False)
        if self._settling is None and self.resume and self._finished:
            self._settler = self._settler or ThreadPoolExecutor(1)
            self._settling = self._settler.submit(settle), self._finished
            self._finished = []

    def _settled(self, *, wait: bool) -> None:
        """Remember what has been made durable meanwhile. wait: to its end, nothing goes on behind us then."""
        if self._settling is not None and (wait or self._settling[0].done()):
            (future, results), self._settling = self._settling, None
            newer, self._finished = self._finished, results
            try:
                future.result()
                self._remember()
            finally:
                self._finished = newer
        if wait and self._settler is not None:
            self._settler.shutdown()
            self._settler = None

    def _remember(self) -> None:
        """Remember the files of finished batches, which are durable."""
        if self.resume and self._finished:
            done = ((decode_fetched(data), data) for data in self._finished)
            rows = (
                (f.path, f.size, f.mtime or 0, *f.validator, data) for f, data in done if not f.problem and f.validator != (0, 0)
            )
            with self.state.together():
                self.state.keep_found(self.source, rows)
        self._finished = []


def _all_in(joined: bytes, known: set[bytes]) -> bool:
    return all(joined[at : at + 32] in known for at in range(0, len(joined), 32))
