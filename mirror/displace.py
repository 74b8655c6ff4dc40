"""Step one of a publish: what is about to be overwritten or deleted in a live tree goes into packs, if it is not there already.

*History by displacement*: a file of the newest snapshot is stored once, as the live file. Only when it has to go its chunks are
packed, unless an undoomed pack has them all, or a deleted file's content comes back under another path of the same plan (equal
chunk lists decide; not if the deletion makes room, for then it happens before the other path is sure to be there).

Each planned path is looked at first. What stands there and is not what the last snapshot says was changed behind our back: it is
packed as well, copied aside, told (`drift`), and it is what the publishing expects there from then on. A thing that no snapshot
has (a tree that was adopted) is treated alike, but if it is just what is to come there it stays.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from mirror.chunking import ChunkId, chunk_class
from mirror.compare import same_content, same_list
from mirror.envelope import SEGMENT
from mirror.events import Notice, PhaseBegan, Problem
from mirror.keys import show
from mirror.lookup import ChunkIndex
from mirror.manifest import Entry, File, Folder, Ref, Symlink, cut_entries
from mirror.plan import Fetch
from mirror.site import FILE, FOLDER, SYMLINK, Site
from mirror.site.live import is_ours
from mirror.site.open import open_site
from mirror.site.standing import Standing
from mirror.snapshot import ManifestReader, ManifestWriter
from mirror.spool import Sorter, Spool
from mirror.steps import Rooms, Step, Steps, Works, changes, displaces, is_as_known, seen_by, step_spool, with_room
from mirror.store.wrap import Counts
from mirror.transfer import up
from mirror.transfer.down import why_not
from mirror.transfer.send import Limits, Sender, Sent, decode_fetched
from mirror.workers import Crew

_LARGE = 48 << 20  # bytes from which worker processes pay


class Instead(NamedTuple):
    """A path where something else stands than the last snapshot says; entry: what, None for nothing."""

    path: bytes
    entry: Entry | None


class Prepared(NamedTuple):
    """What can be published now. expected: the manifest of what stands in the live tree, None for an empty one. written: keys."""

    steps: Steps
    expected: Ref | None
    sent: Sent


_encode, _decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(Instead).decode


def pack_live(works: Works, files: Spool[Fetch], size: int, results: Sorter) -> Sent:
    """Read these live files and store what no pack has; a result for each, by path."""
    target, index = works.target, works.index
    index.drop_claims()
    job = up.Job(works.live.spec, target.spec.store, works.epoch)
    crew = works.crew() if size >= _LARGE else Crew(0)
    sender = Sender(target.store, target.state, index, job, "", crew, works.job, Limits(None, None), results, resume=False)
    try:
        return sender.run(files)
    finally:
        up.release()


def fetch_spool() -> Spool[Fetch]:
    """A spool for files to be read."""
    return Spool(msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(Fetch).decode)


@dataclass
class Displacement:
    """One run of step one. number: of the publishing that follows."""

    works: Works
    number: int
    drifted: int = 0
    _exceptions: Spool[Instead] = field(default_factory=lambda: Spool(_encode, _decode))
    _reads: Spool[Fetch] = field(default_factory=fetch_spool)
    _bytes: int = 0
    _empty: bool = False
    _links: int = 0
    _site: Site = field(init=False)

    def __post_init__(self) -> None:
        self._site = open_site(self.works.live.spec)

    def prepare(self, old: Ref | None, new: Ref) -> Prepared:
        """Look, pack, keep aside. Close the steps."""
        works = self.works
        self._empty = works.live.is_empty()
        if old is None and self._empty:
            # Nothing to look at, to pack or to make room for. On rust-doc (33,000 paths) this takes half the time of what follows.
            first = seen_by((Step(None, after) for _, after in self._compared(old, new)), works.live.files_only)
            steps = Steps.of(first, works.order, works.live.files_only)
            self._say_links()
            return Prepared(steps, None, Sent())
        rooms = Rooms()
        db = works.target.state.db
        db.execute("DROP TABLE IF EXISTS temp.coming")
        db.execute("CREATE TEMP TABLE coming (content BLOB PRIMARY KEY) WITHOUT ROWID")
        with step_spool() as raw, step_spool() as looked, self._exceptions, self._reads, Sorter() as results:
            for before, after in self._compared(old, new):
                rooms.add(before, after)
                raw.append(Step(before, after))
                if old is not None and isinstance(after, File) and after.size and not _same(before, after, works.reader):
                    db.execute("INSERT OR IGNORE INTO coming VALUES (?)", (works.reader.content_key(after),))
            asked = ((self._asks(step, rooms), step) for step in seen_by(raw, works.live.files_only))
            for step, there in works.live.each(asked):
                looked.append(self._looked(with_room(step, rooms), there))
            if len(self._reads):
                works.job.say(PhaseBegan("transfer", len(self._reads), self._bytes))
            sent = pack_live(works, self._reads, self._bytes, results) if len(self._reads) else Sent(requests=Counts())
            done = (decode_fetched(data) for _, data in results)
            steps = Steps.of(self._judged(looked, done), works.order, works.live.files_only)
            try:
                expected = self._expected(old, new, sent)
            except BaseException:
                steps.close()
                raise
        db.execute("DROP TABLE temp.coming")
        self._say_links()
        return Prepared(steps, expected, sent)

    def _compared(self, old: Ref | None, new: Ref) -> Iterator[tuple[Entry | None, Entry | None]]:
        """What differs; links are counted."""
        for before, after in changes(self.works.reader, old, new):
            self._links += isinstance(after, Symlink)
            yield before, after

    def _say_links(self) -> None:
        if self._links and self.works.live.files_only:
            hint = "restore brings them back; --symlinks follow puts there what they lead to"
            text = f"{self._links:,} new links are in the snapshot and cannot stand in a bucket: {hint}"
            self.works.job.say(Notice("links", text))

    # -- looking -------------------------------------------------------------------------------------------------

    def _asks(self, step: Step, rooms: Rooms) -> bytes | None:
        """The path to look at; None where that says nothing, or a run before has."""
        path, before = step.path, step.before
        if is_ours(path) or isinstance(before, Folder):
            return None
        if before is None and (isinstance(step.after, Folder) or self._empty or rooms.is_cleared(path)):
            return None
        return path

    def _looked(self, step: Step, there: Standing | OSError | None) -> Step:
        path, before = step.path, step.before
        if is_ours(path):
            return msgspec.structs.replace(step, fault="that is where the store of the tree is")
        if isinstance(there, OSError):
            return msgspec.structs.replace(step, fault=there.strerror or str(there))
        if there is None:
            return self._gone(step) if isinstance(before, File | Symlink) else step
        if there.kind == SYMLINK:
            return self._link(step, there)
        if there.kind != FILE:
            kind = "a folder" if there.kind == FOLDER else "something that is no file"
            return msgspec.structs.replace(step, fault=f"{kind} of that name is there")
        if before is None and isinstance(step.after, File) and self._is_there_already(step.after, there.size):
            entry = msgspec.structs.replace(step.after, mtime=there.mtime, mode=there.mode, link=b"")
            return msgspec.structs.replace(self._instead(step, entry, there.seen), tag=there.tag)
        as_known = isinstance(before, File) and is_as_known(there, before)
        if not as_known or (self._must_be_packed(step) and not self._kept_whole(step, there)):
            self._read(step, there)
        return msgspec.structs.replace(step, seen=there.seen, tag=there.tag)

    def _kept_whole(self, step: Step, there: Standing) -> bool:
        """Whether the live place itself can keep what stands there, and has done so: a large object is copied by the service."""
        wholes, before = self.works.wholes, step.before
        if wholes is None or not isinstance(before, File) or there.fingerprint != before.fingerprint:
            return False
        return wholes.keep(before, self.works.reader.content_key(before))

    def _is_there_already(self, after: File, size: int) -> bool:
        """Whether a live file that no snapshot has holds just what is to come there: read here, since it need not be packed."""
        if size != after.size:
            return False
        found = up.fetch(self._site, after.path, after.class_, lambda content: _dropped)
        return not found.problem and _has(after, found)

    def _must_be_packed(self, step: Step) -> bool:
        works, before = self.works, step.before
        if not works.history or not isinstance(before, File) or not displaces(before, step.after, works.reader):
            return False
        if step.after is None and not step.room:
            query = "SELECT 1 FROM coming WHERE content = ?"
            if works.target.state.db.execute(query, (works.reader.content_key(before),)).fetchone():
                return False  # its content stays in the live tree, elsewhere
        return is_unpacked(works, before)

    def _read(self, step: Step, there: Standing) -> None:
        known = step.before if isinstance(step.before, File) else step.after
        class_ = known.class_ if isinstance(known, File) else chunk_class(there.size, None)
        entry = File(step.path, there.size, b"", class_, b"", None, there.mtime, there.mode)
        self._reads.append(Fetch(entry, (0, 0)))
        self._bytes += there.size

    def _link(self, step: Step, there: Standing) -> Step:
        target, seen = there.target, there.seen
        if isinstance(step.before, Symlink) and step.before.target == target:
            return msgspec.structs.replace(step, seen=seen)
        found = Symlink(step.path, target, there.mtime)
        if not (isinstance(step.after, Symlink) and step.after.target == target):
            why = "a link stands there that no snapshot has" if step.before is None else "it is another link now"
            if fault := self._keep_aside(step, why):
                return msgspec.structs.replace(step, fault=fault)
        return self._instead(step, found, seen)

    # -- judging -------------------------------------------------------------------------------------------------

    def _judged(self, looked: Spool[Step], results: Iterator[up.Fetched]) -> Iterator[Step]:
        reads = iter(self._reads)
        wanted = next(reads, None)
        for step in looked:
            if _is_done(step):
                continue
            if wanted is not None and wanted.entry.path == step.path:
                step = self._judge(step, wanted.entry, next(results))
                wanted = next(reads, None)
            if not _is_done(step):
                yield step

    def _judge(self, step: Step, asked: File, found: up.Fetched) -> Step:
        before, after = step.before, step.after
        if found.problem == "vanished":
            return self._gone(step) if before is not None else step
        if not found.has_content:
            return msgspec.structs.replace(step, fault=f"what stands there could not be read and kept: {found.why}")
        # An object's time is the one noted with it; that in the answer to a read is when somebody put it there.
        mtime = asked.mtime if self.works.live.files_only else found.mtime
        entry = msgspec.structs.replace(asked, size=found.size, fingerprint=found.fingerprint, mtime=mtime)
        steady = not found.problem and (found.size, mtime) == (asked.size, asked.mtime)
        seen = step.seen if steady else (0, 0)
        if isinstance(before, File) and _has(before, found):
            if mtime == before.mtime or before.mtime is None:
                return msgspec.structs.replace(step, seen=seen)
            return self._instead(step, msgspec.structs.replace(before, mtime=mtime), seen)
        if isinstance(after, File) and _has(after, found):
            entry = msgspec.structs.replace(after, mtime=mtime, mode=asked.mode, link=b"")
            return self._instead(step, entry, seen)
        why = "it was changed behind our back" if before is not None else "a file stands there that no snapshot has"
        if fault := self._keep_aside(step, why):
            return msgspec.structs.replace(step, fault=fault)
        return self._instead(step, self._stored(entry, found), seen)

    def _stored(self, entry: File, found: up.Fetched) -> File:
        chunks, more = self._writer().content(found.chunks)
        return msgspec.structs.replace(entry, chunks=chunks, more=more)

    def _gone(self, step: Step) -> Step:
        self._tell(
            step.path, "it was deleted from the live tree behind our back", "the copy in older snapshots may be lost with it"
        )
        self._exception(step.path, None)
        return msgspec.structs.replace(step, before=None)

    def _instead(self, step: Step, entry: Entry, seen: tuple[int, int]) -> Step:
        self._exception(step.path, entry)
        return msgspec.structs.replace(step, before=entry, seen=seen)

    def _exception(self, path: bytes, entry: Entry | None) -> None:
        self._exceptions.append(Instead(path, entry))

    def _keep_aside(self, step: Step, why: str) -> str:
        """Copy what stands there, and tell; why that could not be, else empty."""
        try:
            where = self.works.live.keep_aside(step.path, self.number)
        except OSError as error:
            why_not(error)  # a full disk ends the run
            return f"what stands there could not be kept aside: {error.strerror or error}"
        self._tell(step.path, why, f"a copy is kept in {where}")
        return ""

    def _tell(self, path: bytes, why: str, hint: str) -> None:
        self.drifted += 1
        self.works.on_problem(Problem(show(path), "drift", why, hint))

    # -- what is expected ----------------------------------------------------------------------------------------

    def _writer(self) -> ManifestWriter:
        target = self.works.target
        return ManifestWriter(target.store, self.works.epoch, {}, target.state)

    def _expected(self, old: Ref | None, new: Ref, sent: Sent) -> Ref | None:
        """The manifest of what stands in the tree: the last one, but for the exceptions."""
        if not len(self._exceptions):
            return old
        works = self.works
        known = {ref.digest: ref.epoch for root in (old, new) if root for ref, _ in works.reader.nodes(root, SEGMENT)}
        writer = ManifestWriter(works.target.store, works.epoch, known, works.target.state)
        with Sorter() as exceptions:
            for path, entry in self._exceptions:
                exceptions.add(path, msgspec.msgpack.encode(Instead(path, entry)))
            entries = merged(works.reader.entries(old) if old else iter(()), (_decode(data) for _, data in exceptions))
            root = writer.tree((writer.put(SEGMENT, piece) for piece in cut_entries(entries)), root_is_node=True)
        sent.written += writer.written
        return root


def merged(entries: Iterator[Entry], exceptions: Iterator[Instead]) -> Iterator[Entry]:
    """Entries with some of them replaced, added or left out; both in order of path."""
    instead = next(exceptions, None)
    for entry in entries:
        while instead is not None and instead.path < entry.path:
            if instead.entry is not None:
                yield instead.entry
            instead = next(exceptions, None)
        if instead is not None and instead.path == entry.path:
            if instead.entry is not None:
                yield instead.entry
            instead = next(exceptions, None)
            continue
        yield entry
    while instead is not None:
        if instead.entry is not None:
            yield instead.entry
        instead = next(exceptions, None)


def is_unpacked(works: Works, entry: File) -> bool:
    """Whether a chunk of it is in no undoomed pack."""
    if works.wholes is not None and works.wholes.has(works.reader.content_key(entry)):
        return False
    return unpacked(works.reader, works.index, entry)


def unpacked(reader: ManifestReader, index: ChunkIndex, entry: File) -> bool:
    """The same, for who only looks."""
    held: list[bytes] = []
    for id_ in reader.chunk_ids(entry):
        held.append(id_)
        if len(held) >= 500:
            if index.unkept(held):
                return True
            held.clear()
    return bool(held) and bool(index.unkept(held))


def _dropped(id_: ChunkId, data: bytes | memoryview) -> None:
    """Only the ids count here."""


def _is_done(step: Step) -> bool:
    """Whether nothing is left to do: what was to be deleted is not there any more."""
    return step.before is None and step.after is None


def _has(entry: File, found: up.Fetched) -> bool:
    return entry.size == found.size and entry.fingerprint == found.fingerprint and same_list(entry, found.chunks)


def _same(before: Entry | None, after: Entry, reader: ManifestReader) -> bool:
    return before is not None and same_content(before, after, reader)
