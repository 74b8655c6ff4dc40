"""Sites: pages and files by path, what people see. Here the protocols; readers for folders and object listings beside them.

A site knows bytes and paths, never manifests or chunks. Paths are bytes as in `mirror.keys`: a folder ends in `/`, the root
is the empty path, order is whole-path byte order.

A site crosses to worker processes as its `SiteSpec`, opened again there by `mirror.site.open.open_site`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, Protocol

if TYPE_CHECKING:
    from mirror.site.filters import Matcher

FILE, FOLDER, SYMLINK = "file", "folder", "symlink"


class Found(NamedTuple):
    """One path of a site as a scan sees it, unread.

    path        bytes; a folder's ends in `/`
    kind        FILE, FOLDER or SYMLINK
    size        bytes; 0 but for files
    mtime       ns since 1970, or None where the source has none (then content is always read)
    mode        permission bits (07777) or None; uid, gid: numbers or None; user, group: names or ""
    target      a symlink's, else b""
    link        the first path (in key order) of the hard-link group that this file belongs to, else b"" (also for the first)
    validator   two integers that change when the content may have: (inode, ctime in ns) of a file, (hash of the ETag, 0) of an
                object; (0, 0) where nothing is known
    xattrs      name → value, or None when not asked for
    """

    path: bytes
    kind: str
    size: int = 0
    mtime: int | None = None
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    user: str = ""
    group: str = ""
    target: bytes = b""
    link: bytes = b""
    validator: tuple[int, int] = (0, 0)
    xattrs: dict[bytes, bytes] | None = None


class Excluded(NamedTuple):
    """A path that a filter left out, unlooked at; a folder (path ends in `/`) stands for everything below. `rule` as written."""

    path: bytes
    rule: str


class Unread(NamedTuple):
    """A path that could not be looked at or is not ours to copy. `kind` is a problem kind of docs/events.md.

    unreadable  a file's or symlink's own data about it could not be had: its previous version stays
    incomplete  a folder could not be listed: nothing at all may be deleted by this run
    special     a fifo, socket or device: left out
    name        a path that no manifest may hold: left out
    vanished    it was listed and then gone
    """

    path: bytes
    kind: str
    why: str


Seen = Found | Excluded | Unread


class Content(NamedTuple):
    """An open file of a site and what it was at that moment. `stream.read(n)` gives up to n bytes; close it."""

    stream: BinaryIO
    size: int
    mtime: int | None
    validator: tuple[int, int]


class Site(Protocol):
    """A place that a mirror is made of; read only."""

    @property
    def url(self) -> str:
        """What a person would call it, without credentials."""
        ...

    @property
    def identity(self) -> dict[str, str]:
        """Where it is: `host`, `path` or `url`; goes into log records and is compared with the parent's."""
        ...

    def check(self) -> None:
        """Whether it can be read at all, at little cost: SourceError as `scan` raises it."""
        ...

    def scan(self, matcher: Matcher | None = None) -> Iterator[Seen]:
        """Everything there, in strictly ascending order of path, filters applied; the root folder (empty path) first where the site
        has folders. Bounded memory. matcher: made of this site's filter, by a caller that wants its counts. SourceError when
        the root itself is missing, no folder, or unreadable."""
        ...

    def open(self, path: bytes) -> Content:
        """Open a file without following links. NotFound when it is gone; OSError with the cause otherwise."""
        ...

    def recheck(self, path: bytes, content: Content) -> str:
        """After reading: empty when the open file is still what `content` says (size, mtime, validator), else how it changed."""
        ...


@dataclass(frozen=True, slots=True)
class Filter:
    """The ordered rules of a run: ('include' | 'exclude', pattern), first match wins; then `.mirrorignore` files."""

    rules: tuple[tuple[str, str], ...] = ()
    ignore_files: bool = True


@dataclass(frozen=True, slots=True)
class SiteSpec:
    """What it takes to open a site, picklable.

    url: folder path, `s3://bucket/prefix`, or any fsspec URL. endpoint_url, region, profile, static_credentials: as in
    StoreSpec.
    xattrs: also read extended attributes.
    """

    url: str
    filter: Filter = field(default_factory=Filter)
    endpoint_url: str = ""
    region: str = ""
    profile: str = ""
    xattrs: bool = False
    static_credentials: bool = False
