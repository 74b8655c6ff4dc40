"""What stands at a path of a live tree, and what a publish asks of the place that it changes: a folder, or an S3 prefix.

`mirror.site.live` and `mirror.site.live_bucket` are the two. How they are changed differs too much to be one protocol; looking at
them, and keeping aside what is somebody else's work, does not.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple, Protocol, TypeVar

from mirror.site import SiteSpec

OTHER: Final = "other"  # as a kind: something that is no file, folder or link
T = TypeVar("T")


class Standing(NamedTuple):
    """What stands at a path. kind: FILE, FOLDER, SYMLINK or OTHER; size: bytes; mtime: ns, None where the place has none of ours;
    mode: permission bits, None where there are none; seen: inode and ctime, (0, 0) where they say nothing; target: a link's; tag:
    the place's word for this version; fingerprint: as it was noted when the file was put there, b"" where it was not."""

    kind: str
    size: int = 0
    mtime: int | None = None
    mode: int | None = None
    seen: tuple[int, int] = (0, 0)
    target: bytes = b""
    tag: str = ""
    fingerprint: bytes = b""


class LivePlace(Protocol):
    """A live tree as far as all steps of a publish see it. OSErrors are about one path."""

    @property
    def url(self) -> str:
        """What a person would call it."""
        ...

    @property
    def spec(self) -> SiteSpec:
        """It as a site, for workers that read it."""
        ...

    @property
    def files_only(self) -> bool:
        """Whether there are no folders and no links, and each name of a file is a file of its own."""
        ...

    def is_empty(self) -> bool:
        """Whether it holds nothing but its store."""
        ...

    def standing(self, path: bytes) -> Standing | None:
        """What stands there now, None for nothing."""
        ...

    def each(self, items: Iterable[tuple[bytes | None, T]]) -> Iterator[tuple[T, Standing | OSError | None]]:
        """Each item with what stands at its path, in their order (None without a look where the path is None)."""
        ...

    def keep_aside(self, path: bytes, number: int) -> str:
        """Copy what stands there to `.mirror/aside/<number>/<path>`; where that is, below the tree."""
        ...

    def settle(self) -> None:
        """Make everything written so far durable."""
        ...

    def sweep(self) -> None:
        """Remove what was staged. Not while a publishing is open."""
        ...
