"""A sync into a tree: stage what is new, write the manifest, publish.

Between the survey and the snapshot a tree needs other steps than a packed target; this is their order, for `mirror sync`. New
content goes to drafts beside the live tree, nothing of it into packs: packs are for what is displaced.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from mirror import log
from mirror.closing import Closing
from mirror.displace import Displacement
from mirror.errors import InTheWayError
from mirror.events import Job, Problem
from mirror.keys import STORE, record_key
from mirror.lease import SECONDS, Lease, Watch
from mirror.lingering import Lingering
from mirror.lookup import ChunkIndex
from mirror.manifest import File, Ref
from mirror.owners import Owners
from mirror.plan import Fetch, Item
from mirror.publish_folder import description
from mirror.publishing import PublishOptions
from mirror.received import is_from_client, noted
from mirror.site import Site, SiteSpec
from mirror.site.live import LiveTree
from mirror.site.live_bucket import LiveBucket
from mirror.snapshot import ManifestReader
from mirror.spool import Sorter
from mirror.steps import Order, Works
from mirror.store.errnos import error_for
from mirror.store.wrap import Counts
from mirror.target import Target
from mirror.transfer import stage, up
from mirror.transfer.send import Limits, Sender, Sent, Way
from mirror.unfinished import unfinished
from mirror.wholes import Wholes
from mirror.workers import Crew


@dataclass
class TreeRun:
    """One run's dealings with one tree. The lock of a folder is held. site: the source, None for a verb that has none; told:
    members of a snapshot that tell of problems; wait, take_over: what to do about another publisher into a bucket."""

    target: Target
    spec: SiteSpec
    site: Site | None
    source: str
    reader: ManifestReader
    dooms: log.Dooms
    job: Job
    on_problem: Callable[[Problem], None]
    crew: Callable[[], Crew]
    told: Callable[[], dict[str, Any]]
    exit: ExitStack
    options: PublishOptions = PublishOptions()
    wait: bool = False
    take_over: bool = False
    lease_seconds: float = SECONDS
    strangers: bool = False  # a client has described what this run publishes
    newest: log.Record | None = None  # record that this run appended
    history: int = 0  # bytes of packs, and of whole files, for what was displaced
    forgotten: int = 0  # snapshots that cannot be brought back any more
    _live: LiveTree | LiveBucket | None = None
    _holds_others: bool = False  # the live folder had something in it before this run
    _owners: Owners = field(default_factory=lambda: Owners(False, "", ""))

    @property
    def live(self) -> LiveTree | LiveBucket:
        """The live place, opened when it is first needed."""
        if self._live is None:
            if self.target.in_bucket:
                self._live = self.exit.enter_context(LiveBucket(self.target.live, self.target.spec.store.transfers))
                return self._live
            try:
                self._live = self.exit.enter_context(LiveTree(self.target.tree))
            except OSError as error:
                raise error_for(error, "cannot publish into", self.target.tree) from error
        return self._live

    def staged(self) -> int:
        """Bytes of drafts that an interrupted run left: they are room for this one."""
        if self.target.in_bucket or not os.path.isdir(os.path.join(self.target.tree, STORE, "staged")):
            return 0
        live = self.live
        assert isinstance(live, LiveTree)
        return live.staging.size()

    @property
    def requests(self) -> Counts:
        """To the live place of a bucket."""
        return Counts(**self._live.site.counts) if isinstance(self._live, LiveBucket) else Counts()

    def finish(self, head: log.Record | None, index: Callable[[], ChunkIndex]) -> log.Record | None:
        """Finish what a run that died left open; the head afterwards."""
        watch = Watch(self.target.store, self.job)
        while head is not None and (found := unfinished(self.target.store, head)) is not None:
            if self.target.in_bucket and not self.take_over and not watch.is_dead(partial(self._has_moved, head)):
                if not self._has_moved(head):
                    self._in_the_way(head)
                head = log.read_head(self.target.store, head.number)
                continue
            self.dooms.learn(head)
            known = index()
            known.refresh(self.dooms)
            try:
                with self._publishing():
                    strangers = is_from_client(self.target.store, found)
                    self._closing(self.works(known, head.epoch, found.body, strangers)).finish(found, head)
            except OSError as error:
                raise self._stopped(error) from error
            head = log.read_head(self.target.store, head.number)
            if head is not None:
                log.put_hint(self.target.store, head)
        return head

    def _has_moved(self, head: log.Record) -> bool:
        """Whether another run has appended something: it goes on, or has come to its end."""
        return self.target.store.size(record_key(head.number + 1)) is not None

    def _in_the_way(self, head: log.Record) -> None:
        """InTheWayError unless this run waits for others."""
        if not self.wait:
            raise InTheWayError(
                "cannot publish into",
                where=self.target.url,
                why=f"another run is publishing there since record {head.number}, and is alive",
                hint="wait for it with --wait; if you know that it is dead, say --take-over",
            )

    @contextmanager
    def _publishing(self) -> Iterator[None]:
        """While the live place is changed: in a bucket nobody has a lock, but a lease."""
        live = self.live
        if not isinstance(live, LiveBucket):
            yield
            return
        with Lease(self.target.store, self.job.id, self.lease_seconds) as lease:
            live.guard(lease.check)
            try:
                yield
            finally:
                live.guard(None)

    def read(self, plan: Iterable[Item], index: ChunkIndex, epoch: int, crew: Crew, limits: Limits, results: Sorter) -> Sent:
        """Make drafts of all files that the plan wants read."""
        live, target = self.live, self.target
        job: stage.Job | up.Job
        if isinstance(live, LiveTree):
            staging = live.staging
            self._holds_others = not live.is_empty()
            way = Way(stage.run_batch, self._wanted, stage.packed, lambda found: stage.is_draft(staging, found), live.settle)
            job = stage.Job(self.spec, live.root, epoch)
        else:  # nothing is staged in a bucket: it is read to know what it is, and once more when it is sent
            way = Way(up.read_batch, kept=lambda found: True)
            job = up.Job(self.spec, target.spec.store, epoch)
        sender = Sender(target.store, target.state, index, job, self.source, crew, self.job, limits, results, way=way)
        try:
            sent = sender.run(plan)
            sender.checkpoint(remember=True)  # packing what is displaced may take as long again
            return sent
        finally:
            stage.release()
            up.release()

    def _wanted(self, item: Fetch) -> stage.Wanted:
        entry, before = item.entry, item.before
        live, same, beside = 0, b"", 0
        if isinstance(before, File):
            live, same = before.size, before.fingerprint if before.size == entry.size else b""
        elif before is None and self._holds_others:
            beside = entry.size
        return stage.Wanted(entry.path, entry.class_, description(entry, self._owners), not entry.link, live, same, beside)

    def publish(
        self, head: log.Record | None, parent: log.Record | None, root: Ref, index: ChunkIndex, members: dict[str, Any]
    ) -> log.Record | None:
        """Steps one to four: the snapshot, None when another run was faster and nothing has been changed."""
        epoch = head.epoch if head else 0
        works = self.works(index, epoch, self.options.members, self.strangers)
        number = (head.number if head else 0) + 1
        try:
            lingering = Lingering(self.target.store, self.reader, self.target.state, epoch, self.options.lingers)
            standing = lingering.after(parent, root)
            prepared = Displacement(works, number).prepare(parent.standing if parent else None, standing.root)
            self.history += prepared.sent.stored
            with prepared.steps as steps:
                works.live.settle()  # the drafts, and what was kept aside
                body = log.draft(
                    log.PUBLISHING,
                    self.target.uuid,
                    head,
                    self._kept(head, parent),
                    **{name: value for name, value in members.items() if name != "finished"},
                    **standing.members,
                    **self.options.members,
                    **works.names(head),
                    expected=log.ref_json(prepared.expected) if prepared.expected else None,
                    owner=self.job.id,
                )
                with self._publishing():
                    record = log.append(self.target.store, body)
                    if not isinstance(record, log.Record):
                        return None
                    closing = self._closing(works)
                    snapshot = closing.carry_out(record, record, steps)
                    self.newest = closing.newest
                    self.history += works.wholes.kept if works.wholes is not None else 0
                    return snapshot
        except OSError as error:
            raise self._stopped(error) from error

    def _kept(self, head: log.Record | None, parent: log.Record | None) -> log.Live:
        """The snapshots that can be brought back while the publish goes on."""
        if self.options.history or parent is None:
            return head.live if head else log.Live()
        self.forgotten = len(parent.live)
        return log.Live.of([parent.number])  # the others are not promised any more before anything of them goes

    def works(
        self, index: ChunkIndex, epoch: int, members: Mapping[str, Any] | None = None, strangers: bool | None = None
    ) -> Works:
        """What the parts of a publish of this run share. members: of the publish, as its record has them; strangers: whether a
        client has described what is published, None: as in this run's own."""
        live, target, wholes, members = self.live, self.target, None, members or {}
        if isinstance(live, LiveTree):
            index.passing = noted(target.store)
        history = members.get("history") is not False
        owners = Owners.of_strangers() if (self.strangers if strangers is None else strangers) else self._owners
        if isinstance(live, LiveBucket) and history:
            wholes = Wholes(live.site, target.store, self.dooms, epoch)
        return Works(target, self.reader, index, live, owners, self.job, self.on_problem, epoch, self.crew, wholes,
                     Order(members.get("order", ())), history)  # fmt: skip

    def _closing(self, works: Works) -> Closing:
        return Closing(works, self.source, self.site, self.job.id, self.told)

    def _stopped(self, error: OSError) -> Exception:
        raised = error_for(error, "cannot go on publishing into", self.target.tree)
        raised.hint = (raised.hint + "; " if raised.hint else "") + "the next sync finishes what this one has begun"
        return raised
