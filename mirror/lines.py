"""The difference of two manifests as lines: what became of each path, with moves told apart, and how many there are of each kind.

with closing(Lines(steps, reader, state)) as lines:
    lines.totals[MOVED], lines.totals[NEW]
    for line, size in lines: ...
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mirror.compare import symbol_of
from mirror.manifest import ChangeLine
from mirror.moves import Moves, Row, row, row_spool
from mirror.plan import CHANGED, DELETED, DESCRIBED, MOVED, NEW
from mirror.snapshot import ManifestReader
from mirror.state import State
from mirror.steps import Step


class Lines:
    """The lines of these steps. totals: by symbol; a move counts as such alone. One such at a time of a state. Close it."""

    def __init__(self, steps: Iterable[Step], reader: ManifestReader, state: State) -> None:
        self._rows, self._moves = row_spool(), Moves(state)
        try:
            self._rows.extend(_rows(steps, reader))
            self.totals = dict.fromkeys((NEW, CHANGED, DELETED, DESCRIBED), 0)
            for each in self._rows:
                self.totals[each.symbol] += 1
            moved = self._moves.pair(self._rows)
        except BaseException:
            self.close()
            raise
        self.totals |= {MOVED: moved, NEW: self.totals[NEW] - moved, DELETED: self.totals[DELETED] - moved}

    def __iter__(self) -> Iterator[tuple[ChangeLine, int]]:
        """(line, size in bytes) of each, in order of path."""
        return self._moves.lines(self._rows)

    def close(self) -> None:
        """Give the disk back."""
        self._rows.close()
        self._moves.close()


def _rows(steps: Iterable[Step], reader: ManifestReader) -> Iterator[Row]:
    key = reader.content_key
    for step in steps:
        before, after = step.before, step.after
        if after is None:
            assert before is not None
            yield row(DELETED, before, key)
        else:
            yield row(NEW if before is None else symbol_of(before, after, reader), after, key)
