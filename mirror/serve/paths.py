"""From a URL to what a snapshot has there.

Owns the way through the manifest to one path (root, node, segment; each by binary search, so three small objects however large the
site) and the rules of a web site: index files, folders, links. Leaves what is then sent to answers.py and contents.py.

A link is followed if it leads to something in the snapshot; a path can name nothing else, for only what the manifest lists is ever
looked up. Nothing called `.mirror` in the root is found, whatever it is.

    >>> path_of(b"/a%20b//c.html"), path_of(b"/../etc/passwd"), path_of(b"/%00")
    (b'a b/c.html', None, None)
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, NamedTuple
from urllib.parse import quote_from_bytes, unquote_to_bytes

from mirror.envelope import CHUNKS, NODE, Kind
from mirror.errors import DamageError
from mirror.keys import ObjectName, parent_of
from mirror.manifest import Entry, File, Page, Redirect, Ref, Symlink, decode_node
from mirror.serve.recent import Recent
from mirror.site.live import is_ours
from mirror.snapshot import ManifestReader
from mirror.store import ReadableStore

INDEX_FILES: Final = (b"index.html", b"index.htm")
NOT_FOUND: Final = b"404.html"  # of a site: what people see who ask for what is not there
_MOST_LINKS: Final = 40  # on the way to one file, as Linux has it
_MOST_PARTS: Final = 4096  # of a path, with what links add
_LONGEST: Final = 65_536  # bytes of a path that a manifest may hold
_ENTRY: Final = 700  # bytes that a decoded entry takes, about, beside its path and chunk ids
_AUTHORITY: Final = re.compile(rb"[a-zA-Z][a-zA-Z0-9+.-]*://[^/]*")


def path_of(raw: bytes) -> bytes | None:
    """The path that the target of a request names, as a manifest would have it; a folder's ends in `/`. None for what no manifest
    can hold. Slashes in a row count as one, as web servers have it."""
    if authority := _AUTHORITY.match(raw):  # some clients send the whole URL
        raw = raw[authority.end() :] or b"/"
    path = unquote_to_bytes(raw)
    if not path.startswith(b"/") or b"\0" in path or len(path) > _LONGEST:
        return None
    path = re.sub(rb"/{2,}", b"/", path)[1:]
    return None if {b".", b".."} & set(path.split(b"/")) or is_ours(path) else path


def url_of(path: bytes) -> str:
    """The URL of a path, from the root of the site."""
    return "/" + quote_from_bytes(path, safe="/")


@dataclass(frozen=True, slots=True)
class View:
    """The snapshot that is served. root: of its manifest; source: path of the folder that it was made from, empty where it was
    none."""

    number: int
    root: Ref
    source: bytes = b""


class AddSlash(NamedTuple):
    """It is a folder, and was asked for as a file."""

    path: bytes


class Objects(ManifestReader):
    """Manifest objects as they are in the store, from any thread; nodes and lists of chunks are held."""

    def __init__(self, store: ReadableStore, memory: int) -> None:
        super().__init__(store, None)
        self.url = store.url
        self._recent: Recent[bytes, tuple[Kind, bytes]] = Recent(memory)

    def object(self, name: ObjectName, kinds: tuple[Kind, ...]) -> tuple[Kind, bytes]:
        """See `ManifestReader.object`. NotFound; DamageError."""
        if not {NODE, CHUNKS} & set(kinds):
            return super().object(name, kinds)
        found = self._recent.get(name.digest, lambda: _weighed(super(Objects, self).object(name, kinds)))
        return found if found[0] in kinds else super().object(name, kinds)


def _weighed(found: tuple[Kind, bytes]) -> tuple[tuple[Kind, bytes], int]:
    return found, len(found[1]) + 100


class _Segment(NamedTuple):
    paths: list[bytes]
    entries: list[Entry]


class Paths:
    """What is where in the snapshots of one target. Any thread may ask. memory: bytes for parts of manifests. NotFound and
    DamageError when one cannot be had."""

    def __init__(self, objects: Objects, memory: int) -> None:
        self._objects = objects
        self._segments: Recent[bytes, _Segment] = Recent(memory)
        self._nodes: Recent[bytes, tuple[int, list[Ref], list[bytes]]] = Recent(memory // 4)

    # -- entries -------------------------------------------------------------------------------------------------

    def at(self, root: Ref, path: bytes) -> Entry | None:
        """The entry of just this path."""
        entry = self._from(root, path)
        return entry if entry is not None and entry.path == path else None

    def has_folder(self, root: Ref, path: bytes) -> bool:
        """Whether there is a folder of this path (which ends in `/`): itself, or something below it, for a bucket has none."""
        entry = self._from(root, path)
        return entry is not None and entry.path.startswith(path)

    def _from(self, root: Ref, path: bytes) -> Entry | None:
        """The first entry whose path is not before this one."""
        while True:
            segment, after = self._segment_of(root, path)
            at = bisect_left(segment.paths, path)
            if at < len(segment.paths):
                return segment.entries[at]
            if after is None or after <= path:
                return None
            path = after

    def _segment_of(self, root: Ref, path: bytes) -> tuple[_Segment, bytes | None]:
        """The segment that would have this path, and the first path behind it."""
        ref, above, after = root, 0, None
        while True:
            level, refs, firsts = self._node(ref, above)
            if not refs:
                return _Segment([], []), None
            at = max(0, bisect_right(firsts, path) - 1)
            if at + 1 < len(refs):
                after = firsts[at + 1]
            ref, above = refs[at], level
            if level == 1:
                return self._segments.get(ref.digest + ref.first, lambda ref=ref: self._read(ref)), after  # type: ignore[misc]

    def _read(self, ref: Ref) -> tuple[_Segment, int]:
        entries = self._objects.segment(ref)
        weight = sum(_ENTRY + len(entry.path) + len(getattr(entry, "chunks", b"")) for entry in entries)
        return _Segment([entry.path for entry in entries], entries), weight

    def _node(self, ref: Ref, above: int) -> tuple[int, list[Ref], list[bytes]]:
        """(level, what it lists, the first paths of that) of a node. Checked as ManifestReader does: levels go down, paths up."""
        level, refs, firsts = self._nodes.get(ref.digest, lambda: self._decode(ref))
        if above and level != above - 1:
            raise self._spoilt(ref, "its level does not fit the one above it")
        return level, refs, firsts

    def _decode(self, ref: Ref) -> tuple[tuple[int, list[Ref], list[bytes]], int]:
        _, payload = self._objects.object(ref.name, (NODE,))
        level, refs = decode_node(payload, f"{self._objects.url}/{ref.name.key()}")
        firsts = [each.first for each in refs]
        if any(one >= other for one, other in pairwise(firsts)):
            raise self._spoilt(ref, "its paths are out of order")
        return (level, refs, firsts), 300 * len(refs) + len(payload)

    def _spoilt(self, ref: Ref, why: str) -> DamageError:
        return DamageError("cannot use the node", where=f"{self._objects.url}/{ref.name.key()}", why=why)

    # -- what a visitor means ------------------------------------------------------------------------------------

    def find(self, view: View, path: bytes) -> File | Page | Redirect | AddSlash | None:
        """What a visitor gets who asks for this path (`path_of`): a file, the index file of a folder, or nothing."""
        entry = self.at(view.root, path) if path and not path.endswith(b"/") else None
        if isinstance(entry, File | Page | Redirect):
            return entry
        found = self._walk(view, path)
        if not isinstance(found, bytes):
            return found if not path.endswith(b"/") else None  # a file is no folder
        if path and not path.endswith(b"/"):
            return AddSlash(path + b"/")
        for name in INDEX_FILES:
            index = self._walk(view, found + name)
            if index is not None and not isinstance(index, bytes):
                return index
        return None

    def not_found(self, view: View) -> File | Page | None:
        """The page of the site for what is not there."""
        found = self._walk(view, NOT_FOUND)
        return found if isinstance(found, File | Page) else None

    def _walk(self, view: View, path: bytes) -> File | Page | Redirect | bytes | None:
        """What a path leads to when links are followed: an entry, or the path of a folder; None for nothing, for a way out of the
        site, and for one that goes round in a circle."""
        left, here, links = _parts(path), b"", 0
        while left:
            part = left.pop()
            if part == b"..":
                if not here:
                    return None
                here = parent_of(here)
                continue
            entry = self.at(view.root, here + part)
            if isinstance(entry, Symlink):
                links += 1
                goal = entry.target
                if goal.startswith(b"/"):
                    if not view.source or not goal.startswith(view.source.rstrip(b"/") + b"/"):
                        return None
                    goal, here = goal[len(view.source.rstrip(b"/")) :], b""
                left += _parts(goal)
                if links > _MOST_LINKS or len(left) > _MOST_PARTS:
                    return None
            elif isinstance(entry, File | Page | Redirect) and not left:
                return None if is_ours(entry.path) else entry
            elif self.has_folder(view.root, here + part + b"/"):
                here += part + b"/"
            else:
                return None
        return None if is_ours(here) else here


def _parts(path: bytes) -> list[bytes]:
    """The components of a path, the first one last."""
    return [part for part in reversed(path.split(b"/")) if part not in (b"", b".")]
