"""Filters laid over a listing that comes from elsewhere (S3, fsspec): the same verdicts that `mirror.site.walk` gives for folders.

Owns entering and leaving folders as a stream of paths goes by. The stream is in key order; folders need not be in it: those that S3
has only as prefixes are entered when the first path below them comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from mirror.keys import parent_of
from mirror.site import Found, Seen, Unread
from mirror.site.filters import IGNORE_FILE, Matcher
from mirror.site.held import Held


class _Entered(NamedTuple):
    path: bytes
    ignoring: bool


class Gate:
    """The filter of one scan. `rules_of(folder)` gives a folder's `.mirrorignore`, None where there is none, and raises OSError
    where it cannot be read; it is asked once for each folder that is entered, before anything below it is taken from the stream.

    skipped: the folder whose content is not wanted, None at first. A stream that walks looks at it after each folder that it gave,
    and leaves out what is below.
    """

    def __init__(self, matcher: Matcher, rules_of: Callable[[bytes], bytes | None]) -> None:
        self._matcher, self._rules_of = matcher, rules_of
        self._entered: list[_Entered] = []
        self._held = Held()
        self.skipped: bytes | None = None

    def run(self, root: Found | None, seen: Iterable[Found | Unread]) -> Iterator[Seen]:
        """What the filters leave of the stream. `root` goes first, where the site has folders."""
        try:
            yield from self._enter(b"", root)
            for here in seen:
                yield from self._take(here)
            while self._entered:
                yield from self._leave()
        finally:
            self._held.close()

    def _take(self, here: Found | Unread) -> Iterator[Seen]:
        path = here.path
        while self._entered and not path.startswith(self._entered[-1].path):
            yield from self._leave()
        above = parent_of(path)
        while not self._skips(path) and len(self._entered[-1].path) < len(above):
            end = above.index(b"/", len(self._entered[-1].path)) + 1
            yield from self._enter(path[:end], None)
        if self._skips(path):
            return
        if isinstance(here, Found) and path[-1:] == b"/":
            yield from self._enter(path, here)
        elif self._entered[-1].path != path and (rule := self._rule(path)):
            yield from self._held.exclude(path, rule)
        else:
            yield from self._out(here)

    def _skips(self, path: bytes) -> bool:
        return self.skipped is not None and path.startswith(self.skipped)

    def _rule(self, path: bytes) -> str:
        return self._matcher.decide(path) if self._matcher.active and path else ""

    def _enter(self, folder: bytes, found: Found | None) -> Iterator[Seen]:
        rule = self._rule(folder)
        if rule and not self._matcher.looks_below(rule):
            self.skipped = folder
            yield from self._held.exclude(folder, rule)
            return
        if found and rule:
            self._held.hold(found)
        elif found:
            yield from self._out(found)
        try:
            rules = self._rules_of(folder) if self._matcher.reads_ignore_files else None
        except OSError as error:
            self.skipped = folder
            why = (error.strerror or str(error)).lower()
            yield from self._out(Unread(folder, "incomplete", f"its {IGNORE_FILE.decode()} cannot be read: {why}"))
            return
        if rules is not None:
            self._matcher.enter(folder, rules)
        self._entered.append(_Entered(folder, rules is not None))

    def _leave(self) -> Iterator[Seen]:
        left = self._entered.pop()
        if left.ignoring:
            self._matcher.leave()
        return self._held.leave(left.path)

    def _out(self, here: Found | Unread) -> Iterator[Seen]:
        if self._held.folders:
            yield from self._held.release()
        yield here
