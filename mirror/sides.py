"""Two manifests side by side: which paths differ. Only the segments that differ are read.

What both name by the same digest is skipped unread, a node with all that is below it, so the cost is that of the differences.
Boundaries may differ where something was added or taken away: then the side that is behind is opened and read entry by entry
until both stand at the same beginning again.

    for before, after in differences(reader, one.manifest, other.manifest):
        print((before or after).path)
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from mirror.compare import same_entry
from mirror.envelope import NODE, SEGMENT
from mirror.errors import DamageError
from mirror.manifest import Entry, Ref, decode_node
from mirror.snapshot import ManifestReader


def differences(reader: ManifestReader, one: Ref, other: Ref) -> Iterator[tuple[Entry | None, Entry | None]]:
    """(entry in `one`, entry in `other`) of each path that differs, in order of path; None where it is not there."""
    left, right = _Side(reader, one), _Side(reader, other)
    while True:
        a, b = left.path, right.path
        if a is None and b is None:
            return
        if b is None or (a is not None and a < b):
            yield left.take(), None
        elif a is None or b < a:
            yield None, right.take()
        elif left.unopened and right.unopened and left.top.digest == right.top.digest:
            left.skip()
            right.skip()
        elif left.unopened and right.unopened and (left.level or right.level):
            level = max(left.level, right.level)
            for side in (left, right):
                if side.level == level:
                    side.open()
        else:
            before, after = left.take(), right.take()
            if not same_entry(before, after, reader):
                yield before, after


class _Side:
    """One manifest, opened from the front as far as needed: what comes next is an entry, or a segment or node not yet read."""

    def __init__(self, reader: ManifestReader, root: Ref) -> None:
        self._reader = reader
        self._entries: list[Entry] = []  # of the open segment, reversed
        self._ahead: list[tuple[int, Ref]] = []  # (level, ref), reversed; level 0: a segment
        self._open_node(root)

    @property
    def path(self) -> bytes | None:
        """The path that comes next, None at the end."""
        if self._entries:
            return self._entries[-1].path
        return self._ahead[-1][1].first if self._ahead else None

    @property
    def unopened(self) -> bool:
        """Whether a whole segment or node comes next."""
        return not self._entries and bool(self._ahead)

    @property
    def top(self) -> Ref:
        return self._ahead[-1][1]

    @property
    def level(self) -> int:
        return self._ahead[-1][0]

    def skip(self) -> None:
        """Pass over what comes next, unread."""
        self._ahead.pop()

    def open(self) -> None:
        """Read what comes next: a node gives way to what it lists, a segment to its entries."""
        level, ref = self._ahead.pop()
        if level:
            self._open_node(ref, level)
            return
        self._entries = self._reader.segment(ref)[::-1]
        if not self._entries:
            raise DamageError("cannot use the segment", where=ref.name.key(), why="it is empty")

    def take(self) -> Entry:
        """The next entry."""
        while not self._entries:
            self.open()
        return self._entries.pop()

    def _open_node(self, ref: Ref, level: int = 0) -> None:
        kind, payload = self._reader.object(ref.name, (NODE,) if level else (NODE, SEGMENT))
        if kind == SEGMENT:
            self._ahead.append((0, ref))
            return
        found, refs = decode_node(payload, ref.name.key())
        firsts = [below.first for below in refs]
        misfit = level and (found != level or not refs or firsts[0] != ref.first)
        if misfit or any(a >= b for a, b in pairwise(firsts)):
            raise DamageError("cannot use the node", where=ref.name.key(), why="it does not fit the one above it")
        self._ahead += [(found - 1, below) for below in reversed(refs)]
