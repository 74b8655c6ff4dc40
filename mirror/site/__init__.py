"""Sites: pages and files by path, what people see. Here the protocols; readers and writers of each kind of place beside them.

A site knows bytes and paths, never manifests or chunks. Paths are bytes as in `mirror.keys`: a folder ends in `/`, the root
is the empty path, order is whole-path byte order.

A site crosses to worker processes as its `SiteSpec`, opened again there by `mirror.site.open.open_site`.

Writing comes in tiers. Every place that can be written takes whole files (`WritableSite`); object services copy on their side as
well (`CopyingSite`); folders and their like have folders and links (`TreeSite`). What a place keeps of a file beside its bytes
differs: `keeps` says it, and whoever writes tells people what is lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO, Final, NamedTuple, Protocol

from mirror.webclient.proxies import Proxies

if TYPE_CHECKING:
    from mirror.site.filters import Matcher
    from mirror.site.writing import Description

FILE, FOLDER, SYMLINK = "file", "folder", "symlink"

# What a writable site may keep beside paths and bytes, and what it can do besides: see `WritableSite.keeps`.
FOLDERS, LINKS, TIMES, MODES, OWNERS, TYPES = "folders", "links", "times", "modes", "owners", "types"
CONDITIONS, COPIES = "conditions", "copies"
ANYTHING: Final = ""  # as `expected`: whatever is there, nothing as well


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
    link        a link that is to be followed and cannot be: left out
    skipped     a link, where links are left out
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


class There(NamedTuple):
    """What is at a path of a writable site now. tag: the place's own word for this version of it (an ETag), "" where it has none;
    size: bytes; mtime: ns, as it was given to `put` where the place keeps times, else as the place has it, None if it has none;
    fingerprint: as it was given to `put`, b"" where it was not or the place keeps no such note."""

    tag: str
    size: int
    mtime: int | None
    fingerprint: bytes = b""


class Written(NamedTuple):
    """It was done. tag: of what is there now, "" where there is none; unset: what could not be set, as sentences."""

    tag: str = ""
    unset: tuple[str, ...] = ()


class Lost(NamedTuple):
    """Something else than was expected is there (None: nothing is), and stays."""

    there: There | None


class Unchanged(NamedTuple):
    """So many bytes of a new content, from offset `at`, are those of the old one from offset `old`."""

    at: int
    old: int
    length: int


class WritableSite(Site, Protocol):
    """A place that whole files can be put into. A root that is not there yet scans as empty, and is made by the first `put`.

    Every method may be called from any thread, and again after it failed. An OSError is about that path; a MirrorError about the
    place (credentials, network, full, read only), and nothing of a client library's own is raised. `expected` is what must be at
    the path for anything to happen: ANYTHING, a tag, or None for nothing; but for ANYTHING only where `keeps` has CONDITIONS
    (ValueError), for a look before the act is no condition.
    """

    @property
    def keeps(self) -> frozenset[str]:
        """Which of FOLDERS, LINKS, TIMES, MODES, OWNERS, TYPES (media types and headers) this place keeps, and whether it can
        do CONDITIONS and COPIES. FOLDERS means a TreeSite, LINKS a LinkingSite, COPIES a CopyingSite."""
        ...

    def fault(self, path: bytes) -> str:
        """Why no file can have this path here, empty when one can. A path that passes does not leave the root. Asks nobody."""
        ...

    def look(self, path: bytes) -> There | None:
        """What is there now, None for no file. At most one request."""
        ...

    def put(
        self, path: bytes, size: int, chunks: Iterable[bytes], what: Description, expected: str | None = ANYTHING
    ) -> Written | Lost:
        """Put a file of `size` bytes there, durable, whole and visible when this returns, folders above it made. Readers see the
        old or the new one, where the place can do that at all. What `chunks` raises passes, and what was there stays; so it does
        when they have another size than was said (OSError EIO). Bounded memory. `chunks` is consumed, also by Lost."""
        ...

    def remove(self, path: bytes, expected: str | None = ANYTHING) -> Written | Lost:
        """Remove a file, or with a `/` at its end an empty folder (OSError when it is not empty). One that is not there is no
        error."""
        ...

    def sweep(self) -> int:
        """Remove what dead writers left behind where nobody sees it (unfinished uploads older than a day); how many."""
        ...

    def close(self) -> None:
        """Give back what is open. May be called twice."""
        ...


class CopyingSite(WritableSite, Protocol):
    """A place that copies on its own side: content that it has need not be sent."""

    def copy(self, source: bytes, path: bytes, what: Description, expected: str | None = ANYTHING) -> Written | Lost:
        """Make `path` a file with the content of the file `source` and this description; both may be the same path, to describe it
        anew. FileNotFoundError when the source is gone, or is noted to have another fingerprint than the description says. Durable
        when it returns."""
        ...

    def put_changed(
        self,
        path: bytes,
        size: int,
        unchanged: Iterable[Unchanged],
        content: Callable[[int, int], Iterable[bytes]],
        what: Description,
        expected: str,
    ) -> Written | Lost:
        """`put` over the version `expected` of the same path, of which some runs stay as they are: where they are long enough they
        are not sent. content(at, length): bytes of the new file, asked for in ascending order and only where they must be sent.
        Nothing is checked but sizes: that the runs are equal is the caller's knowledge (equal chunk ids)."""
        ...


class TreeSite(WritableSite, Protocol):
    """A place that has folders of its own."""

    def make_folder(self, path: bytes) -> bool:
        """Make a folder (path ends in `/`) and those above it. False when it is there. OSError when a file is in the way."""
        ...


class LinkingSite(TreeSite, Protocol):
    """A place that has symbolic links, and describes its folders: a folder of this machine."""

    def make_link(self, path: bytes, target: bytes, what: Description) -> Written:
        """Put a symbolic link there, in place of a file or link; durable when it returns. Links are never followed."""
        ...

    def describe(self, path: bytes, what: Description) -> Written:
        """Set the description of a file or folder that is there. A folder's times last: whatever is made in it changes them."""
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
    xattrs: also read extended attributes. symlinks: keep them as links, follow those that stay in the site, or skip them.
    by_url: files behind a web server, each read at its own URL, none listed; with a key_file those of a tree that a `mirror serve`
    holds. insecure, proxies: as in StoreSpec.
    """

    url: str
    filter: Filter = field(default_factory=Filter)
    endpoint_url: str = ""
    region: str = ""
    profile: str = ""
    xattrs: bool = False
    static_credentials: bool = False
    symlinks: str = "keep"
    by_url: bool = False
    insecure: bool = False
    key_file: str = ""
    proxies: Proxies = field(default_factory=Proxies)
