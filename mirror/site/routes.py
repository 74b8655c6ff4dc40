"""Header routes: which media type and headers a file is published with, by its path. Pure.

A route is a pattern, as the filters have them (relative to the root of the site, case counts), a header's name and its value. For
each header the first route that matches a path decides, as the first filter rule does; a path that no route matches has none, and
its media type is that of its name (mediatypes.py).

    >>> routes = Routes([("*.css", "cache-control", "max-age=31536000"), ("*", "cache-control", "no-cache")])
    >>> routes.of(b"a/b.css"), routes.of(b"index.html")
    (('', (('cache-control', 'max-age=31536000'),)), ('', (('cache-control', 'no-cache'),)))

What is published is part of a file's entry; `digest` says which routes a scan was made with, so that the next one knows whether its
memory still holds.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from blake3 import blake3

from mirror.site.filters import INCLUDE, compile_rule
from mirror.spelling import Route

Published = tuple[str, tuple[tuple[str, str], ...]]  # media type ("": by its name), headers (name in lower case, value) by name
NOTHING: Final[Published] = ("", ())
_TYPE: Final = "content-type"
_KEPT: Final = 4096  # distinct results that are held, so that a million files of one kind share one


class Routes:
    """The routes of one run. UsageError for a pattern that can match nothing. Picklable by what it is made of: `routes`."""

    def __init__(self, routes: Iterable[Route | tuple[str, str, str]] = ()) -> None:
        self.routes: tuple[Route, ...] = tuple(Route(*route) for route in routes)
        self._patterns = [(compile_rule(INCLUDE, route.pattern), route.name, route.value) for route in self.routes]
        self._known: dict[Published, Published] = {}
        text = "\n".join("\0".join(route) for route in self.routes)
        self.digest = blake3(text.encode("utf-8", "surrogateescape")).digest(16) if self.routes else b""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Routes) and self.routes == other.routes

    def __hash__(self) -> int:
        return hash(self.routes)

    def of(self, path: bytes) -> Published:
        """What the file with this path is published with."""
        if not self._patterns:
            return NOTHING
        text = path.decode("utf-8", "surrogateescape")
        found: dict[str, str] = {}
        for pattern, name, value in self._patterns:
            if name not in found and pattern.matches(text):
                found[name] = value
        if not found:
            return NOTHING
        media_type = found.pop(_TYPE, "")
        published = (media_type, tuple(sorted(found.items())))
        if len(self._known) >= _KEPT:
            self._known.clear()
        return self._known.setdefault(published, published)
