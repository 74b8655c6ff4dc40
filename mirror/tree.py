"""A sync into a tree: stage what is new, write the manifest, publish.

Between the survey and the snapshot a tree needs other steps than a packed target; this is their order, for `mirror sync`. New
content goes to drafts beside the live tree, nothing of it into packs: packs are for what is displaced.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from mirror import log
from mirror.closing import Closing
from mirror.displace import Displacement
from mirror.events import Job, Problem
from mirror.keys import STORE
from mirror.lingering import Lingering
from mirror.lookup import ChunkIndex
from mirror.manifest import File, Ref
from mirror.owners import Owners
from mirror.plan import Fetch, Item
from mirror.publish import description
from mirror.publishing import PublishOptions
from mirror.site import Site, SiteSpec
from mirror.site.live import LiveTree
from mirror.snapshot import ManifestReader
from mirror.spool import Sorter
from mirror.steps import Order, Works
from mirror.store.errnos import error_for
from mirror.target import Target
from mirror.transfer import stage
from mirror.transfer.send import Limits, Sender, Sent, Way
from mirror.unfinished import unfinished
from mirror.workers import Crew


@dataclass
class TreeRun:
    """One sync's dealings with one tree. The lock is held. told: members of a snapshot that tell of problems."""

    target: Target
    spec: SiteSpec
    site: Site
    source: str
    reader: ManifestReader
    dooms: log.Dooms
    job: Job
    on_problem: Callable[[Problem], None]
    crew: Callable[[], Crew]
    told: Callable[[], dict[str, Any]]
    exit: ExitStack
    options: PublishOptions = PublishOptions()
    newest: log.Record | None = None  # record that this run appended
    history: int = 0  # bytes of packs for what was displaced
    forgotten: int = 0  # snapshots that cannot be brought back any more
    _live: LiveTree | None = None
    _owners: Owners = field(default_factory=lambda: Owners(False, "", ""))

    @property
    def live(self) -> LiveTree:
        """The live folder, opened when it is first needed."""
        if self._live is None:
            try:
                self._live = self.exit.enter_context(LiveTree(self.target.tree))
            except OSError as error:
                raise error_for(error, "cannot publish into", self.target.tree) from error
        return self._live

    def staged(self) -> int:
        """Bytes of drafts that an interrupted run left: they are room for this one."""
        if not os.path.isdir(os.path.join(self.target.tree, STORE, "staged")):
            return 0
        return self.live.staging.size()

    def finish(self, head: log.Record | None, index: Callable[[], ChunkIndex]) -> log.Record | None:
        """Finish what a run that died left open; the head afterwards."""
        while head is not None and (found := unfinished(self.target.store, head)) is not None:
            self.dooms.learn(head)
            known = index()
            known.refresh(self.dooms)
            try:
                self._closing(self._works(known, head.epoch, found.body)).finish(found, head)
            except OSError as error:
                raise self._stopped(error) from error
            head = log.read_head(self.target.store, head.number)
            if head is not None:
                log.put_hint(self.target.store, head)
        return head

    def read(self, plan: Iterable[Item], index: ChunkIndex, epoch: int, crew: Crew, limits: Limits, results: Sorter) -> Sent:
        """Make drafts of all files that the plan wants read."""
        live = self.live
        way = Way(stage.run_batch, self._wanted, lambda found: stage.is_draft(live.staging, found), live.settle)
        job = stage.Job(self.spec, live.root, epoch)
        target = self.target
        sender = Sender(target.store, target.state, index, job, self.source, crew, self.job, limits, results, way=way)
        try:
            sent = sender.run(plan)
            sender.checkpoint(remember=True)  # packing what is displaced may take as long again
            return sent
        finally:
            stage.release()

    def _wanted(self, item: Fetch) -> stage.Wanted:
        entry, before = item.entry, item.before
        live, same = 0, b""
        if isinstance(before, File):
            live, same = before.size, before.fingerprint if before.size == entry.size else b""
        return stage.Wanted(entry.path, entry.class_, description(entry, self._owners), not entry.link, live, same)

    def publish(
        self, head: log.Record | None, parent: log.Record | None, root: Ref, index: ChunkIndex, members: dict[str, Any]
    ) -> log.Record | None:
        """Steps one to four: the snapshot, None when another run was faster and nothing has been changed."""
        epoch = head.epoch if head else 0
        works = self._works(index, epoch, self.options.members)
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
                    expected=log.ref_json(prepared.expected) if prepared.expected else None,
                    owner=self.job.id,
                )
                record = log.append(self.target.store, body)
                if not isinstance(record, log.Record):
                    return None
                closing = self._closing(works)
                snapshot = closing.carry_out(record, record, steps)
                self.newest = closing.newest
                return snapshot
        except OSError as error:
            raise self._stopped(error) from error

    def _kept(self, head: log.Record | None, parent: log.Record | None) -> log.Live:
        """The snapshots that can be brought back while the publish goes on."""
        if self.options.history or parent is None:
            return head.live if head else log.Live()
        self.forgotten = len(parent.live)
        return log.Live.of([parent.number])  # the others are not promised any more before anything of them goes

    def _works(self, index: ChunkIndex, epoch: int, members: dict[str, Any]) -> Works:
        """members: of the publish, as its record has them."""
        return Works(self.target, self.reader, index, self.live, self._owners, self.job, self.on_problem, epoch, self.crew,
                     Order(members.get("order", ())), members.get("history") is not False)  # fmt: skip

    def _closing(self, works: Works) -> Closing:
        return Closing(works, self.source, self.site, self.job.id, self.told)

    def _stopped(self, error: OSError) -> Exception:
        raised = error_for(error, "cannot go on publishing into", self.target.tree)
        raised.hint = (raised.hint + "; " if raised.hint else "") + "the next sync finishes what this one has begun"
        return raised
