"""What a sync is going to cost, for `sync -n`: content that history must pack, and requests. Only lists are read for it.

The lines of the plan are taken in one after another, as they are shown; then it is asked.

    with Estimate() as estimate:
        for line, size in lines:
            estimate.add(line, size)
        estimate.displaced(ground, plan), estimate.requests(ground, displaced, tree=True)

Requests are those that an object service charges for, by kind, as they follow from the plan: nothing of them is asked twice,
nothing shrinks by compression, no race is lost.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, groupby, pairwise
from math import ceil
from typing import NamedTuple

from mirror import log
from mirror.displace import unpacked
from mirror.envelope import SEGMENT
from mirror.lingering import Lingering
from mirror.lookup import ChunkIndex
from mirror.manifest import ChangeLine, Entry, File, Ref
from mirror.pack import PACK_STORED
from mirror.plan import CHANGED, DELETED, DESCRIBED, MOVED, NEW, Drop, Item
from mirror.snapshot import ManifestReader
from mirror.spool import KeySorter
from mirror.steps import PAGES, order_of

_WHOLE, _PART = 10 << 20, 8 << 20  # an object up to here is one request; a larger one goes in parts of about that
_SEGMENT, _NODE, _LINES = 1000, 256, 4096  # entries, refs and lines that such an object has about
_RECORDS = {"tree": 4, "packed": 1}  # a publishing, its snapshot, that deletions are done, and the lease of who publishes


class Displaced(NamedTuple):
    """Content that no pack has, and that goes from a live tree: files, and their plain bytes."""

    files: int = 0
    size: int = 0


class Ground(NamedTuple):
    """What a plan is made against. parent: None for a new target."""

    reader: ManifestReader
    chunks: ChunkIndex
    parent: log.Record | None


class Estimate:
    """The lines of one plan. Close it: paths are kept on disk."""

    def __init__(self) -> None:
        self.totals = dict.fromkeys((NEW, CHANGED, DELETED, MOVED, DESCRIBED), 0)
        self._objects = dict.fromkeys(self.totals, 0)  # that are no folders
        self._sent = self._puts = 0
        self._goes, self._touched = KeySorter(), KeySorter()

    def add(self, line: ChangeLine, size: int) -> None:
        """Take in one line. size: bytes of the file as it is now, or as it was."""
        self.totals[line.symbol] += 1
        self._touched.extend([line.path, line.moved_from] if line.moved_from else [line.path])
        if line.path[-1:] in (b"/", b""):
            return
        self._objects[line.symbol] += 1
        if line.symbol in (NEW, CHANGED):
            self._sent += size
            self._puts += 1 if size <= _WHOLE else 2 + ceil(size / _PART)
        if line.symbol in (CHANGED, DELETED):
            self._goes.extend([line.path])

    def close(self) -> None:
        """Give the disk back."""
        self._goes.close()
        self._touched.close()

    def __enter__(self) -> Estimate:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- history ---------------------------------------------------------------------------------------------------

    def displaced(self, ground: Ground, plan: Iterable[Item], lingering: Lingering) -> Displaced:
        """What a publish has to pack. lingering: what stays though it left the site is not displaced yet, what is due is."""
        files = size = 0
        for entry in chain(self._going(plan, lingering.snapshots), lingering.due(ground.parent)):
            if isinstance(entry, File) and entry.size and unpacked(ground.reader, ground.chunks, entry):
                files, size = files + 1, size + entry.size
        return Displaced(files, size)

    def _going(self, plan: Iterable[Item], grace: int) -> Iterator[Entry]:
        goes = iter(self._goes)
        path = next(goes, None)
        for item in plan:
            while path is not None and path < item.entry.path:
                path = next(goes, None)
            if path != item.entry.path:
                continue
            if not isinstance(item, Drop):
                if item.before is not None:
                    yield item.before
            elif not grace or order_of(item.entry.path) == PAGES:
                yield item.entry

    # -- requests --------------------------------------------------------------------------------------------------

    def requests(self, ground: Ground, displaced: Displaced, *, tree: bool) -> dict[str, int]:
        """Requests by kind: put, get, head, copy, delete."""
        parent, objects = ground.parent, self._objects
        if not any(self.totals.values()):
            return {}
        stored = displaced.size if tree else self._sent
        packs = ceil(stored / PACK_STORED)
        puts = packs + bool(packs) + self._manifest(ground) + _RECORDS["tree" if tree else "packed"] + 1  # and the hint
        if parent is not None:
            puts += ceil(sum(self.totals.values()) / _LINES) + 1  # what changed, and the node above
        else:
            puts += 2  # mirror.json, and the proof that the service refuses to overwrite it
        if not tree:
            return {"put": puts}
        copies, goes = objects[MOVED] + objects[DESCRIBED], objects[DELETED] + objects[MOVED]
        heads = self._puts_heads(parent) + copies + goes
        kinds = {"put": puts + self._puts, "get": displaced.files, "head": heads, "copy": copies, "delete": goes}
        return {kind: count for kind, count in kinds.items() if count}

    def _puts_heads(self, parent: log.Record | None) -> int:
        """What stands there is looked at before each change; not in an empty place."""
        return self._objects[NEW] + self._objects[CHANGED] if parent is not None else 0

    def _manifest(self, ground: Ground) -> int:
        """Segments that change, and the nodes above."""
        fresh = ceil((self.totals[NEW] + self.totals[MOVED]) / _SEGMENT)
        segments = fresh if ground.parent is None else max(fresh, self._segments(ground.reader, ground.parent.manifest))
        objects, level = segments, segments
        while level > 1:
            level = ceil(level / _NODE)
            objects += level
        return objects + (segments == 1)

    def _segments(self, reader: ManifestReader, root: Ref) -> int:
        """Segments of a manifest with a path that changes."""
        paths = (path for path, _ in groupby(self._touched))
        path, count = next(paths, None), 0
        for _, after in pairwise(chain(reader.leaves(root, SEGMENT), [None])):
            found = False
            while path is not None and (after is None or path < after.first):
                found, path = True, next(paths, None)
            count += found
        return count
