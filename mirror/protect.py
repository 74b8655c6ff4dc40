"""What a rollback wants where rules protect paths: the manifest of the snapshot, but what is excluded stays as the newest snapshot
has it, neither brought back nor changed nor deleted.

    with Wanted(reader, db, newest.manifest, old.manifest, matcher.protects, on_problem) as wanted:
        wanted.steps                   # each path that is to change, in order
        wanted.root(writer)            # its manifest: that of the snapshot itself where nothing that is protected differs

Where both cannot be (a protected file lies in what was a file then), what is protected stays and the other path is a problem.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import msgspec

from mirror.displace import Instead, merged
from mirror.envelope import SEGMENT
from mirror.events import Problem
from mirror.keys import parent_of, show
from mirror.manifest import Entry, File, Folder, Ref, cut_entries
from mirror.sides import differences
from mirror.snapshot import ManifestReader, ManifestWriter
from mirror.spool import Spool
from mirror.steps import Step, step_spool

# Why a path matters: it stays, there or not; something stands there and stays; that is below it; it is a hard link's first path.
_STAYS, _STANDS, _LEADS, _FIRST = "stays", "stands", "leads", "first"


class Wanted:
    """The difference between two manifests, heeding what is protected. Close it. kept: paths that differ and stay all the same.
    db: temporary tables go there."""

    def __init__(
        self,
        reader: ManifestReader,
        db: sqlite3.Connection,
        newest: Ref,
        old: Ref,
        protects: Callable[[bytes], bool] | None,
        on_problem: Callable[[Problem], None],
    ) -> None:
        self._reader, self._db, self._newest, self._old, self._on_problem = reader, db, newest, old, on_problem
        self.kept = 0
        self.steps = step_spool()
        self._instead: Spool[Instead] = Spool(msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(Instead).decode)
        self._firsts: dict[bytes, bytes] = {}  # of hard links whose first path is kept as something else: who is first now
        try:
            if protects is None:
                self.steps.extend(Step(*each) for each in differences(reader, newest, old))
            else:
                self._sort_out(protects)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give the disk back."""
        self.steps.close()
        self._instead.close()

    def __enter__(self) -> Wanted:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def root(self, writer: Callable[[dict[bytes, int]], ManifestWriter]) -> Ref:
        """The manifest. writer: makes one that names the objects (digest → epoch) that are there already."""
        if not len(self._instead):
            return self._old
        known = {ref.digest: ref.epoch for root in (self._newest, self._old) for ref, _ in self._reader.nodes(root, SEGMENT)}
        made = writer(known)
        entries = merged(self._reader.entries(self._old), iter(self._instead))
        return made.tree((made.put(SEGMENT, piece) for piece in cut_entries(entries)), root_is_node=True)

    # -- what stays ----------------------------------------------------------------------------------------------

    def _sort_out(self, protects: Callable[[bytes], bool]) -> None:
        """Two passes: which paths stay and what hangs on that, then what becomes of each path."""
        self._db.execute("DROP TABLE IF EXISTS temp.stays")
        self._db.execute("CREATE TEMP TABLE stays (path BLOB, why TEXT, PRIMARY KEY (path, why)) WITHOUT ROWID")
        with step_spool() as raw:
            for before, after in differences(self._reader, self._newest, self._old):
                step = Step(before, after)
                raw.append(step)
                if protects(step.path):
                    self.kept += 1
                    self._note(step)
            if self.kept:
                self._decide(raw)
            else:
                self.steps.extend(raw)
        self._db.execute("DROP TABLE temp.stays")

    def _note(self, step: Step) -> None:
        path, before = step.path, step.before
        self._mark(path, _STAYS)
        if before is not None:
            self._mark(path, _STANDS)
            above = parent_of(path)
            while above:
                self._mark(above, _LEADS)
                above = parent_of(above)
        if isinstance(before, File) and before.link:
            self._mark(before.link, _FIRST)

    def _mark(self, path: bytes, why: str) -> None:
        self._db.execute("INSERT OR IGNORE INTO stays VALUES (?, ?)", (path, why))

    def _is(self, path: bytes, why: str) -> bool:
        return self._db.execute("SELECT 1 FROM stays WHERE path = ? AND why = ?", (path, why)).fetchone() is not None

    # -- what becomes of each path -------------------------------------------------------------------------------

    def _decide(self, raw: Spool[Step]) -> None:
        changing: set[bytes] = set()  # first paths of hard links of which others stay
        for step in raw:
            path = step.path
            if self._is(path, _STAYS):
                self._keep(step, changing)
                continue
            if self._is(path, _FIRST):
                changing.add(path)
            after = self._possible(step)
            if after is not step.after:
                self._instead.append(Instead(path, after))
            if after is not step.before:
                self.steps.append(Step(step.before, after))

    def _keep(self, step: Step, changing: set[bytes]) -> None:
        before = step.before
        if isinstance(before, File) and before.link:
            first = before.link
            if first in changing:  # what it was another name of becomes something else
                first = self._firsts.setdefault(b"kept " + first, before.path)
                before = msgspec.structs.replace(before, link=b"" if first == before.path else first)
                self.steps.append(Step(step.before, before))
        self._instead.append(Instead(step.path, before))

    def _possible(self, step: Step) -> Entry | None:
        """What can be at a path beside what stays."""
        path, before, after = step.path, step.before, step.after
        if isinstance(after, Folder | None) and path.endswith(b"/") and self._is(path, _LEADS):
            return after if after is not None else before
        if after is None:
            return None
        blocked = not isinstance(after, Folder) and self._is(path + b"/", _LEADS)
        at = path.find(b"/")
        while at > 0 and not blocked:
            blocked = at < len(path) and self._is(path[:at], _STANDS)
            at = path.find(b"/", at + 1)
        if blocked:
            why = "what the rules protect is in its way"
            self._on_problem(Problem(show(path), "unwritable", why, "--delete-excluded brings it back all the same"))
            return before
        if isinstance(after, File) and after.link and self._is(after.link, _STAYS):
            first = self._firsts.setdefault(after.link, path)
            return msgspec.structs.replace(after, link=b"" if first == path else first)
        return after
