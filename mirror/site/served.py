"""The live place of a tree that a `mirror serve` holds, read file by file, signed. Nothing is listed, so it cannot be scanned.

What comes is proved by whoever reads it. A small file comes in one request, a large one in parts of 1 MiB, in smaller ones where
the link breaks.
"""

from __future__ import annotations

import base64
import errno
import io
from collections.abc import Iterator
from typing import BinaryIO, Final, cast

from mirror.errors import MirrorError, NoListing, NotFound, TemporaryError
from mirror.site import Content, Seen, SiteSpec
from mirror.site.filters import Matcher
from mirror.webclient.pace import Pace, in_stretches
from mirror.webclient.parts import asked_part, content_range
from mirror.webclient.signed import SMALL, SignedClient

_PART: Final = 1 << 20  # as much as the server gives at once
_CONNECTIONS: Final = 16  # as many as are asked for at once: eight threads ahead, and who reads


class ServedSite:
    """A `Site` at the URL of a target, of which only `open` is of use."""

    def __init__(self, spec: SiteSpec) -> None:
        self._client = SignedClient(spec.url, spec.key_file, insecure=spec.insecure, proxies=spec.proxies, connections=_CONNECTIONS)
        self._pace = Pace()

    @property
    def url(self) -> str:
        return self._client.url

    @property
    def identity(self) -> dict[str, str]:
        return {"url": self.url}

    def check(self) -> None:
        """See `Site.check`."""

    def scan(self, matcher: Matcher | None = None) -> Iterator[Seen]:
        """NoListing."""
        raise NoListing("cannot list", where=self.url, why="a server does not say what is in a live folder")

    def open(self, path: bytes) -> Content:
        """See `Site.open`. TemporaryError when the server does not answer."""
        quoted = "-/live?path=" + base64.urlsafe_b64encode(path).decode().rstrip("=")
        what = "cannot read"
        try:
            answer = self._client.ask("GET", quoted, what, limit=_PART + SMALL, headers=asked_part(0, _PART), accept=(206, 416))
        except TemporaryError:
            raise
        except MirrorError as error:
            raise OSError(errno.EIO, error.why) from error
        part = content_range(answer.headers)
        if part is None or part.total is None:
            raise OSError(errno.EIO, "the answer does not say how large it is")
        if part.total <= len(answer.body) or answer.status == 416:
            return Content(io.BytesIO(answer.body if answer.status == 206 else b""), part.total, None, (0, 0))
        reader = _Reader(self._client, self._pace, quoted, answer.body, part.total)
        return Content(cast(BinaryIO, io.BufferedReader(reader, _PART)), part.total, None, (0, 0))

    def recheck(self, path: bytes, content: Content) -> str:
        """See `Site.recheck`. Whoever reads proves what came."""
        return ""


class _Reader(io.RawIOBase):
    """The rest of a large file, asked for as it is read. first: what has come."""

    def __init__(self, client: SignedClient, pace: Pace, path: str, first: bytes, size: int) -> None:
        super().__init__()
        self._client, self._pace, self._path, self._size = client, pace, path, size
        self._held, self._at = memoryview(first), len(first)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview | bytearray) -> int:  # type: ignore[override]
        if not self._held and self._at < self._size:
            end = min(self._at + _PART, self._size)
            self._held = memoryview(in_stretches(self._pace, self._at, end, self._ask) or b"")
            self._at = end
        count = min(len(buffer), len(self._held))
        memoryview(buffer)[:count] = self._held[:count]
        self._held = self._held[count:]
        return count

    def _ask(self, start: int, end: int, resend: bool) -> bytes:
        try:
            data, size = self._client.part(self._path, start, end, resend)
        except NotFound:
            size = -1
        if size != self._size:
            raise OSError(errno.ESTALE, "it was changed while it was read")
        return data
