"""Parent, plan and results into the new manifest: one sequential merge of three sorted streams. Pure but for the spools it is
given.

Decides what became of each planned path: a file that was read and proved unchanged stays as it was; one that could not be
read keeps its previous version; deletions happen unless the scan was incomplete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

import msgspec

from mirror.events import Problem
from mirror.keys import show
from mirror.manifest import Entry, File, Page, Ref
from mirror.plan import CHANGED, DELETED, DESCRIBED, NEW, SAME, Drop, Fetch, Item, Put
from mirror.transfer.up import Fetched

UNPROVEN = (0, 0)
Merged = tuple[Entry, tuple[int, int]]


@dataclass
class Merger:
    """content: joined ids → what the entry holds (inline, or a list object that it writes). same_list: whether an entry's list
    object holds just these ids. keep_gone: the scan was incomplete, nothing may be deleted but what stands in the way of
    something new. parts_links: what is gone stays for good, so that a hard link becomes a file of its own."""

    content: Callable[[bytes], tuple[bytes, Ref | None]]
    same_list: Callable[[File | Page, bytes], bool]
    on_problem: Callable[[Problem], None]
    on_change: Callable[[str, Entry], None]
    keep_gone: bool = False
    in_the_way: Callable[[bytes], bool] = lambda path: False
    parts_links: bool = False
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys((NEW, CHANGED, DELETED, SAME, DESCRIBED), 0))
    changed_something: bool = False

    def run(
        self, parent: Iterable[Entry], validators: Iterable[tuple[int, int]], items: Iterable[Item], results: Iterable[Fetched]
    ) -> Iterator[Merged]:
        """The entries of the new manifest with their validators, in order. validators: one for each parent entry without an
        item."""
        parents, known, done = iter(parent), iter(validators), iter(results)
        old = next(parents, None)
        for item in items:
            path = item.entry.path
            while old is not None and old.path < path:
                yield old, next(known)
                old = next(parents, None)
            if old is not None and old.path == path:
                old = next(parents, None)
            if type(item) is Put:
                self._say(item.symbol, item.entry)
                yield item.entry, item.validator
            elif type(item) is Drop:
                if self.keep_gone and not self.in_the_way(path):
                    yield self._kept(item.entry), UNPROVEN
                else:
                    self._say(DELETED, item.entry)
            elif type(item) is Fetch:
                yield from self._fetched(item, next(done))
        while old is not None:
            yield old, next(known)
            old = next(parents, None)

    def _kept(self, entry: Entry) -> Entry:
        if self.parts_links and type(entry) is File and entry.link:
            return msgspec.structs.replace(entry, link=b"")  # its other names may become another file, it does not
        return entry

    def _say(self, symbol: str, entry: Entry) -> None:
        self.counts[symbol] += 1
        self.changed_something = True
        self.on_change(symbol, entry)

    def _fetched(self, item: Fetch, result: Fetched) -> Iterator[Merged]:
        path, before = item.entry.path, item.before
        assert result.path == path, "results and plan run apart"
        if result.problem:
            hint = "what was read is kept; the next run looks again" if result.has_content else ""
            if before is not None and not result.has_content:
                hint = "the previous version is kept"
            self.on_problem(Problem(show(path), result.problem, result.why, hint))
        if not result.has_content:
            if before is not None:
                yield before, UNPROVEN
            return
        known = before if before is not None and isinstance(before, File | Page) else None
        same = known is not None and self._same(known, result)
        chunks, more = (known.chunks, known.more) if same and known is not None else self.content(result.chunks)
        entry = msgspec.structs.replace(
            item.entry,
            size=result.size,
            mtime=result.mtime,
            fingerprint=result.fingerprint,
            class_=result.class_,
            chunks=chunks,
            more=more,
        )
        if same and entry == before:
            self.counts[SAME] += 1
        else:
            self._say(DESCRIBED if same else CHANGED if before is not None else NEW, entry)
        yield entry, result.validator

    def _same(self, before: File | Page, result: Fetched) -> bool:
        if before.fingerprint != result.fingerprint or before.size != result.size or before.class_ != result.class_:
            return False
        return before.chunks == result.chunks if before.more is None else self.same_list(before, result.chunks)
