"""What stays in a live tree for a while after its site has lost it (`--delete-grace`): yesterday's page still gets its assets.

A snapshot is what the site was. What *stands* in the live folder is that and what lingers, and a record of a tree names both: its
`manifest`, and `standing` where that is more. `lingers` says what left the site with this snapshot, with the one before and so on,
newest first, N of them at most. What has fallen out of that list is due: it stood, it is not to stand any more, so it is a deletion
like any other, for whoever publishes and for whoever takes over. Nothing else needs to know of grace.

Pages do not linger: who asks for one that is gone must learn that it is gone. What lingers gives way to whatever comes under its
path or needs the place of it. Folders linger as long as something in them does.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import Any, NamedTuple

import msgspec

from mirror import log
from mirror.envelope import SEGMENT
from mirror.keys import segment_cut
from mirror.manifest import SEGMENT_MASK, Entry, File, Folder, Ref, Symlink, cut_entries, decode_entry, encode
from mirror.sides import differences
from mirror.snapshot import ManifestReader, ManifestWriter
from mirror.spool import Sorter, Spool
from mirror.state import State
from mirror.steps import PAGES, Rooms, order_of
from mirror.store import WritableStore


class Standing(NamedTuple):
    """What is to stand in the live tree. root: its manifest; lingers: manifests of what left the site, newest first."""

    root: Ref
    lingers: tuple[Ref | None, ...] = ()

    @property
    def members(self) -> dict[str, Any]:
        """What records say of it; nothing where nothing lingers."""
        if not self.lingers:
            return {}
        lingers = [log.ref_json(ref) if ref else None for ref in self.lingers]
        return {"standing": log.ref_json(self.root), "lingers": lingers}


@dataclass
class Lingering:
    """Works out what is to stand after a publish. snapshots: for how many of them what left the site stays, 0 for none. epoch: of
    the run. Only segments in which something lingers are written, and nothing but disk grows with how much does."""

    store: WritableStore
    reader: ManifestReader
    state: State
    epoch: int
    snapshots: int
    _ahead: Entry | None = field(default=None, init=False)

    def after(self, parent: log.Record | None, manifest: Ref) -> Standing:
        """What is to stand once the site is `manifest` and the snapshot before it was `parent`."""
        if not self.snapshots or parent is None:
            return Standing(manifest)
        with _spool() as stays, _spool() as fresh:
            self._sort(parent, manifest, stays, fresh)
            if not len(stays):
                return Standing(manifest)
            known: dict[bytes, int] = {}
            for root in (parent.standing, manifest):
                known |= {ref.digest: ref.epoch for ref, _ in self.reader.nodes(root, SEGMENT)}
            writer = ManifestWriter(self.store, self.epoch, known, self.state)
            root = writer.tree(self._joined(writer, manifest, iter(stays)), root_is_node=True)
            newest = writer.tree((writer.put(SEGMENT, piece) for piece in cut_entries(fresh)), root_is_node=True)
            return Standing(root, (newest if len(fresh) else None, *lingers_of(parent)[: self.snapshots - 1]))

    def due(self, parent: log.Record | None) -> Iterator[Entry]:
        """What lingers beside the snapshot `parent` and will not beside the next."""
        if parent is not None and parent.standing != parent.manifest:
            with Sorter() as sorter:
                old = (path for path, age in self._ages(parent, sorter) if path is not None and age + 1 >= self.snapshots)
                yield from self.reader.at(parent.standing, old)

    # -- who lingers ---------------------------------------------------------------------------------------------

    def _sort(self, parent: log.Record, manifest: Ref, stays: Spool[Entry], fresh: Spool[Entry]) -> None:
        """Put what stays, with its folders, into `stays`, and what of it has just left the site into `fresh`."""
        rooms = Rooms()
        with _spool() as gone, Sorter() as sorter:
            for before, after in differences(self.reader, parent.standing, manifest):
                rooms.add(before, after)
                if after is None and isinstance(before, File | Symlink | Folder):
                    gone.append(before)
            ages = self._ages(parent, sorter)
            path, age = next(ages, _NO_MORE)
            folders: list[Entry] = []  # around the entry at hand that the site has no more, and that nothing has asked for
            for entry in gone:
                while path is not None and path < entry.path:
                    path, age = next(ages, _NO_MORE)
                while folders and not entry.path.startswith(folders[-1].path):
                    folders.pop()
                if rooms.makes_room(entry.path):
                    continue
                if isinstance(entry, Folder):
                    folders.append(entry)
                    continue
                is_fresh = entry.path != path
                if order_of(entry.path) == PAGES if is_fresh else age + 1 >= self.snapshots:
                    continue
                if isinstance(entry, File) and entry.link:
                    # Its other names may be described anew, and what is on one name of a file is on all: it gets a copy of its own.
                    entry = msgspec.structs.replace(entry, link=b"")
                stays.extend([*folders, entry])
                folders.clear()
                if is_fresh:
                    fresh.append(entry)

    def _ages(self, parent: log.Record, sorter: Sorter) -> Iterator[tuple[bytes | None, int]]:
        """(path, how many snapshots it has lingered before the next) of all that lingers as of `parent`, by path. What came back
        and left again is in several of its lists; the newest counts. What is in none was due, and could not be deleted."""
        if parent.standing == parent.manifest:
            return
        for age, ref in enumerate(lingers_of(parent)):
            for entry in self.reader.entries(ref) if ref else ():
                sorter.add(entry.path, age.to_bytes(4, "big"))
        listed = iter(sorter)
        path, number = next(listed, _NONE_LISTED)
        for before, after in differences(self.reader, parent.manifest, parent.standing):
            if before is not None or after is None:
                continue
            while path is not None and path < after.path:
                path, number = next(listed, _NONE_LISTED)
            yield after.path, int.from_bytes(number, "big") if path == after.path else _OVERDUE

    # -- the manifest of both --------------------------------------------------------------------------------------

    def _joined(self, writer: ManifestWriter, manifest: Ref, more: Iterator[Entry]) -> Iterator[Ref]:
        """The segments of a manifest and more entries, cut as if all had been cut anew. Those without any of them stay as they
        are: where a segment ends behind a path whose hash says so, the next one begins in any case."""
        self._ahead = next(more, None)
        leaves = pairwise(chain(self.reader.leaves(manifest, SEGMENT), [None]))
        for ref, after in leaves:
            assert ref is not None
            if self._ahead is None or (after is not None and self._ahead.path >= after.first):
                yield ref
            else:
                yield from (writer.put(SEGMENT, piece) for piece in cut_entries(self._run(ref, after, leaves, more)))
        yield from (writer.put(SEGMENT, piece) for piece in cut_entries(self._until(None, more)))

    def _run(
        self, ref: Ref, after: Ref | None, leaves: Iterator[tuple[Ref | None, Ref | None]], more: Iterator[Entry]
    ) -> Iterator[Entry]:
        """The entries of one segment and of as many behind it as hang together, with those that belong between."""
        while True:
            last = b""
            for entry in heapq.merge(self.reader.segment(ref), self._until(after, more), key=_path):
                last = entry.path
                yield entry
            if after is None or segment_cut(last, SEGMENT_MASK):
                return
            ref, after = next(leaves)  # type: ignore[assignment]  # only the very last is followed by none

    def _until(self, after: Ref | None, more: Iterator[Entry]) -> Iterator[Entry]:
        while self._ahead is not None and (after is None or self._ahead.path < after.first):
            yield self._ahead
            self._ahead = next(more, None)


def lingers_of(record: log.Record) -> tuple[Ref | None, ...]:
    """What a record says has left the site, newest first."""
    return tuple(log.ref_of(value) if value else None for value in record.body.get("lingers", ()))


def lingering_paths(reader: ManifestReader, record: log.Record) -> Iterator[bytes]:
    """What stands in the live tree with a snapshot and is not in it, by path."""
    if record.standing == record.manifest:
        return iter(())
    found: Iterable[tuple[Entry | None, Entry | None]] = differences(reader, record.manifest, record.standing)
    return (after.path for before, after in found if before is None and after is not None)


_NO_MORE: tuple[None, int] = (None, 0)
_NONE_LISTED: tuple[None, bytes] = (None, b"")
_OVERDUE = 1 << 31


def _spool() -> Spool[Entry]:
    return Spool(encode, decode_entry)


def _path(entry: Entry) -> bytes:
    return entry.path
