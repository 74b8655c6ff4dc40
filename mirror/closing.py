"""Step four of a publish, and the records around it: the snapshot that names what was really written, the deletions, and the record
that they are done. And how the next writing run finishes what one that died left open (unfinished.py finds it).

    if found := unfinished(store, head):
        Closing(...).finish(found, head)

A run that takes over appends a record of its own before it touches the live tree. It is alone: on a folder it has the lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import msgspec

from mirror import log
from mirror.displace import Instead, fetch_spool, is_unpacked, merged, pack_live
from mirror.envelope import SEGMENT, write_time
from mirror.errors import InTheWayError
from mirror.events import Notice, PhaseBegan, SnapshotCommitted
from mirror.lingering import lingering_paths
from mirror.manifest import File, Folder, Ref, cut_entries, decode_segment
from mirror.obtain import Obtain, Pairs
from mirror.plan import Fetch
from mirror.publish_folder import LiveChanges
from mirror.publish_objects import ObjectChanges
from mirror.scan import UNPROVEN, memory_of
from mirror.site import Site
from mirror.site.live import LiveTree
from mirror.site.live_bucket import LiveBucket
from mirror.snapshot import ManifestWriter
from mirror.spool import KeySorter, Sorter
from mirror.steps import Steps, Works, bare_steps, folders_of
from mirror.steps import changes as differing
from mirror.transfer.send import decode_fetched

Changes = LiveChanges | ObjectChanges
_LAST_COPY = "an older snapshot needs it, and what stands there could not be read and kept"
_OURS = (log.SNAPSHOT, log.PUBLISHING, log.TAKEOVER, log.DONE)


def members_of(publishing: log.Record) -> dict[str, Any]:
    """What a publishing says that its snapshot says as well."""
    names = ("source", "started", "tags", "filters", "changes", "totals", "complete", "problems", "problem_count", "parents",
             "standing", "lingers", "rollback_of", "history", "import")  # fmt: skip
    return {name: publishing.body[name] for name in names if name in publishing.body}


@dataclass
class Closing:
    """Ends publishes. source: what the local state files the site under; site: the source, if this run has it; owner: this run.
    told: members of a snapshot that tell of problems, of a publish of this run's own."""

    works: Works
    source: str
    site: Site | None
    owner: str
    told: Callable[[], dict[str, Any]] = dict
    newest: log.Record | None = None  # that this run appended

    # -- a publish of one's own ----------------------------------------------------------------------------------

    def carry_out(self, publishing: log.Record, head: log.Record, steps: Steps, *, recover: bool = False) -> log.Record:
        """Change the tree, append the snapshot, delete, append that it is done; the snapshot. head: the newest record."""
        works = self.works
        expected = log.ref_of(publishing.body["expected"]) if publishing.body.get("expected") else None
        changes = self._changes(publishing.number, lambda: ((step.before, step.after) for step in steps.all), self.site, recover)
        try:
            changes.run(steps, publishing.standing)
            snapshot = self._close(publishing, head, steps, changes, expected)
            works.live.sweep()
            if snapshot.body["deletes"]:
                self._delete(snapshot, snapshot, steps, changes)
            return snapshot
        finally:
            if changes.items.unset:
                works.job.say(Notice("metadata", f"metadata of {changes.items.unset:,} entries of the live tree could not be set"))
            changes.items.close()

    def _changes(self, number: int, others: Pairs, site: Site | None, recover: bool) -> Changes:
        live = self.works.live
        if isinstance(live, LiveBucket):
            return ObjectChanges(self.works, live, number, site, recover)
        assert isinstance(live, LiveTree)
        return LiveChanges(self.works, live, number, Obtain(self.works, live, site, others), recover)

    def _close(self, publishing: log.Record, head: log.Record, steps: Steps, changes: Changes, expected: Ref | None) -> log.Record:
        root, members = publishing.manifest, members_of(publishing)
        if not changes.recover:
            members |= self.told()
        if changes.items.failures:
            root, standing = self._really(publishing, expected, changes)
            members |= {"changes": None, "complete": False}
            if standing != root or "standing" in members:
                members["standing"] = log.ref_json(standing)
            members["totals"] = members["totals"] | {"entries": root.entries, "bytes": root.plain}
            if changes.recover:
                members["problem_count"] = members.get("problem_count", 0) + changes.items.failures
        due = bool(len(steps.gone)) and not changes.items.failures and expected is not None
        members |= {
            "manifest": log.ref_json(root),
            "deletes": log.ref_json(expected) if due and expected is not None else None,
            "owner": self.owner,
            "finished": write_time(datetime.now(UTC)),
        }
        snapshot = self._append(head, lambda base: log.draft(
            log.SNAPSHOT, self.works.target.uuid, base, self._live(base).plus(base.number + 1), **members,
            **self.works.names(base)))  # fmt: skip
        self.works.job.say(SnapshotCommitted(snapshot.number))
        return snapshot

    def _live(self, base: log.Record) -> log.Live:
        """The snapshots that can be brought back beside the new one."""
        return base.live if self.works.history else log.Live()

    def _append(self, base: log.Record, body: Callable[[log.Record], dict[str, Any]]) -> log.Record:
        """Append a record of a publish that is this run's own. What others append meanwhile (a tag forgotten) is no obstacle."""
        store = self.works.target.store
        does = "" if self.works.target.in_bucket else "does this filesystem know locks? "
        while True:
            result = log.append(store, body(base))
            if isinstance(result, log.Record):
                self.newest = result
                return result
            head = log.read_head(store, result.winner.number)
            assert head is not None
            for record in log.records_back(store, head, base.number + 1):
                if record.kind in _OURS:
                    raise InTheWayError(
                        "cannot go on publishing into",
                        where=self.works.live.url,
                        why=f"another run has taken over, with record {record.number}",
                        hint=f"{does}let only one host publish",
                    )
            base = head

    def _really(self, publishing: log.Record, expected: Ref | None, changes: Changes) -> tuple[Ref, Ref]:
        """(manifest, standing) as they really are now: what was wanted, but for what failed; nothing is gone but what made room."""
        works = self.works
        reader, store = works.reader, works.target.store
        with KeySorter() as sorter:
            for record in (publishing, *(log.read_record(store, number) for number in publishing.body["parents"])):
                sorter.extend(lingering_paths(reader, record))
            lingering = list(islice(sorter, 1))
            root = self._as_it_is(publishing.manifest, expected, changes, sorter)
            if not lingering:
                return root, root
        return root, self._as_it_is(publishing.standing, expected, changes, ())

    def _as_it_is(self, manifest: Ref, expected: Ref | None, changes: Changes, aside: Iterable[bytes]) -> Ref:
        """A manifest, but for what failed and what is not gone. aside: paths in order that it has no part in."""
        works = self.works
        target, reader = works.target, works.reader
        known = {r.digest: r.epoch for root in (manifest, expected) if root for r, _ in reader.nodes(root, SEGMENT)}
        writer = ManifestWriter(target.store, works.epoch, dict(known), target.state)
        with Sorter() as stays:
            for step in self._kept(changes, expected, manifest, aside):
                stays.add(step.path, _encode(step))
            instead = (_decode(data) for _, data in stays)
            refs = []
            for piece in cut_entries(merged(reader.entries(manifest), instead)):
                ref = writer.put(SEGMENT, piece)
                refs.append(ref)
                if ref.digest not in known:  # the next sync reads these files again: what failed must not look unchanged
                    entries = decode_segment(piece.payload, ref.name.key())
                    target.state.keep_scanned(self.source, ref.digest, memory_of(entries, (UNPROVEN for _ in entries)))
            return writer.tree(refs, root_is_node=True)

    def _kept(self, changes: Changes, expected: Ref | None, manifest: Ref, aside: Iterable[bytes]) -> Iterator[Instead]:
        """Where the manifest is to say what was there before: paths that failed, and those that were not deleted."""
        failed, removed, others = iter(changes.items.failed), iter(changes.items.removed), iter(aside)
        fails, goes, other = next(failed, None), next(removed, None), next(others, None)
        files_only = self.works.live.files_only
        folders: list[Folder] = []  # that go, around the path at hand
        for before, after in differing(self.works.reader, expected, manifest):
            entry = after if after is not None else before
            assert entry is not None
            path = entry.path
            while fails is not None and fails < path:
                fails = next(failed, None)
            while goes is not None and goes < path:
                goes = next(removed, None)
            while other is not None and other < path:
                other = next(others, None)
            if after is None and path == other:
                continue
            while folders and not path.startswith(folders[-1].path):
                folders.pop()
            if files_only and after is None and isinstance(before, Folder):
                folders.append(before)
            # In a bucket a folder goes with the last file in it, a link with its entry; a file may have to make way for one of the
            # same path.
            stays = isinstance(before, File) and not isinstance(after, File) if files_only else after is None
            if path == fails or (stays and path != goes):
                yield from (Instead(folder.path, folder) for folder in folders)
                folders.clear()
                yield Instead(path, before)

    # -- deletions -----------------------------------------------------------------------------------------------

    def _delete(self, snapshot: log.Record, head: log.Record, steps: Steps, changes: Changes) -> None:
        """Do the deletions of a snapshot, and append that they are done."""
        works = self.works
        works.job.say(PhaseBegan("write", len(steps.gone)))
        keep = self._pack_last_copies(steps, changes)
        changes.remove_all(
            msgspec.structs.replace(step, fault=step.fault or _LAST_COPY) if step.path in keep else step
            for step in reversed(steps.gone)
        )
        changes.remove_hollow(steps, snapshot.standing)
        changes.describe_folders((folder for step in steps.gone for folder in folders_of(step)), snapshot.standing)
        works.live.settle()
        self._append(head, lambda base: log.draft(
            log.DONE, works.target.uuid, base, base.live, snapshot=snapshot.number, owner=self.owner,
            **works.names(base)))  # fmt: skip

    def _pack_last_copies(self, steps: Steps, changes: Changes) -> set[bytes]:
        """Moved content was not packed, since it is elsewhere in the tree. Where it is no more, it is packed now. Gives the paths
        that must stay, since what stands there is not what has to be kept."""
        if not self.works.history:
            return set()
        works, db, key = self.works, self.works.target.state.db, self.works.reader.content_key
        works.index.refresh(log.Dooms(works.target.store, works.target.state))
        db.execute("DROP TABLE IF EXISTS temp.moved")
        db.execute("CREATE TEMP TABLE moved (content BLOB, path BLOB, PRIMARY KEY (content, path)) WITHOUT ROWID")
        for step in steps.gone:
            if isinstance(step.before, File) and step.before.size and is_unpacked(works, step.before):
                db.execute("INSERT INTO moved VALUES (?, ?)", (key(step.before), step.path))
        if db.execute("SELECT EXISTS (SELECT 1 FROM moved)").fetchone()[0]:
            for after, stands in changes.stand_as_written(self._wanted(steps)):
                if stands:
                    db.execute("DELETE FROM moved WHERE content = ?", (key(after),))
        last = {path for (path,) in db.execute("SELECT path FROM moved")}  # few: somebody was at the copies
        db.execute("DROP TABLE temp.moved")
        return self._pack({step.path: step.before for step in steps.gone if step.path in last and isinstance(step.before, File)})

    def _wanted(self, steps: Steps) -> Iterator[File]:
        """What was written and has the content of something that is to go."""
        db, key = self.works.target.state.db, self.works.reader.content_key
        for step in steps.all:
            after = step.after
            if not isinstance(after, File) or not after.size:
                continue
            if db.execute("SELECT 1 FROM moved WHERE content = ? LIMIT 1", (key(after),)).fetchone():
                yield after

    def _pack(self, before: dict[bytes, File]) -> set[bytes]:
        keep: set[bytes] = set()
        if not before:
            return keep
        with fetch_spool() as files, Sorter() as results:
            for path in sorted(before):
                files.append(Fetch(msgspec.structs.replace(before[path], fingerprint=b"", chunks=b"", more=None), (0, 0)))
            pack_live(self.works, files, sum(entry.size for entry in before.values()), results)
            for path, data in results:
                found = decode_fetched(data)
                if not found.has_content or found.fingerprint != before[path].fingerprint:
                    keep.add(path)
        return keep

    # -- after a run that died -----------------------------------------------------------------------------------

    def finish(self, found: log.Record, head: log.Record) -> bool:
        """Finish what a run that died left open, as a record of one's own; False when another run appended one first."""
        works = self.works
        body = log.draft(log.TAKEOVER, works.target.uuid, head, head.live, of=found.number, owner=self.owner)
        claim = log.append(works.target.store, body)
        if not isinstance(claim, log.Record):
            return False
        if found.kind == log.PUBLISHING:
            old = log.ref_of(found.body["expected"]) if found.body.get("expected") else None
            with bare_steps(works.reader, old, found.standing, works.live.files_only, works.order) as steps:
                self.carry_out(found, claim, steps, recover=True)
            what = f"the publishing of record {found.number}"
        else:
            with bare_steps(works.reader, log.ref_of(found.body["deletes"]), found.standing, works.live.files_only) as steps:
                changes = self._changes(found.number, tuple, None, recover=True)
                try:
                    self._delete(found, claim, steps, changes)
                finally:
                    changes.items.close()
            works.live.sweep()
            what = f"the deletions of snapshot {found.number}"
        works.job.say(Notice("finished", f"a run before this one did not end: {what} is finished now"))
        return True


_encode, _decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(Instead).decode
