"""The live place of a tree behind any web server, read file by file at its own URLs. Nothing is listed, so it cannot be scanned.

What comes is proved by whoever reads it. A file is fetched as it is read; a small one at once. Where the connection breaks in the
middle of a large one, the rest is asked for.
"""

from __future__ import annotations

import errno
import io
from collections.abc import Iterator
from contextlib import ExitStack
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, Final, cast
from urllib.parse import quote_from_bytes

from mirror.errors import AuthError, MirrorError, NoListing, NotFound, TemporaryError
from mirror.site import Content, Seen, SiteSpec
from mirror.site.ahead import AT_ONCE
from mirror.site.filters import Matcher
from mirror.webclient import Stream
from mirror.webclient.client import WebClient
from mirror.webclient.pace import LEAST
from mirror.webclient.parts import content_length

_LARGEST: Final = 1 << 50
_UNTOLD: Final = 4 << 30  # bytes of a file whose size the server does not tell: it lies on disk before it is looked at
_BUFFER: Final = 1 << 18
_TRIES: Final = 5  # in a row that do not get on, each from where the one before broke off


class WebSite:
    """A `Site` below a URL, of which only `open` is of use."""

    def __init__(self, spec: SiteSpec) -> None:
        self._client = WebClient(spec.url, insecure=spec.insecure, proxies=spec.proxies)

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
        raise NoListing("cannot list", where=self.url, why="a web server does not say what it has")

    def open(self, path: bytes) -> Content:
        """See `Site.open`. TemporaryError when the server does not answer."""
        reader = _Reader(self._client, quote_from_bytes(path))
        try:
            size = reader.size
            if size is None or size <= AT_ONCE:
                with reader:
                    stream, size = _whole(reader, size)
            else:
                stream = cast(BinaryIO, io.BufferedReader(reader, _BUFFER))  # as much as is asked for, to the end
        except BaseException:
            reader.close()
            raise
        return Content(stream, size, None, (0, 0))

    def recheck(self, path: bytes, content: Content) -> str:
        """See `Site.recheck`. The stream is one answer."""
        return ""


def _whole(reader: _Reader, size: int | None) -> tuple[BinaryIO, int]:
    """All of a file that is small, or of which the server does not tell the size: on disk when it turns out large."""
    with ExitStack() as stack:
        file = stack.enter_context(SpooledTemporaryFile(AT_ONCE, prefix="mirror-"))
        while data := reader.read(AT_ONCE):
            file.write(data)
            if size is None and file.tell() > _UNTOLD:
                raise OSError(errno.EFBIG, f"it has more than {_UNTOLD:,} bytes, and the server does not say how many")
        size = file.tell()
        file.seek(0)
        stack.pop_all()
    return cast(BinaryIO, file), size


class _Reader(io.RawIOBase):
    """The body of one file, asked for again from where it broke off. size: as the server tells it, None if it does not."""

    def __init__(self, client: WebClient, path: str) -> None:
        super().__init__()
        self._client, self._path, self._at, self._left, self._broke = client, path, 0, _TRIES, 0
        self._exit, self._held = ExitStack(), memoryview(b"")
        self._pieces = self._ask(0).pieces

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview | bytearray) -> int:  # type: ignore[override]
        while not self._held:
            try:
                piece = next(self._pieces, None)
            except TemporaryError:
                self._left = self._left - 1 if self._at < self._broke + LEAST else _TRIES
                self._broke = self._at
                if not self._left:
                    raise
                self._resume()
                continue
            if piece is None:
                return 0
            self._held = memoryview(piece)
        count = min(len(buffer), len(self._held))
        memoryview(buffer)[:count] = self._held[:count]
        self._held = self._held[count:]
        self._at += count
        return count

    def close(self) -> None:
        self._exit.close()
        super().close()

    def _ask(self, start: int) -> Stream:
        headers = {"Range": f"bytes={start}-"} if start else {}
        try:
            stream = self._exit.enter_context(
                self._client.stream("GET", self._path, what="cannot read", limit=_LARGEST, headers=headers, accept=(200, 206))
            )
        except (NotFound, AuthError) as error:  # a bucket that may not be listed refuses what is not there
            raise NotFound(self._path) from error
        except TemporaryError:
            raise
        except MirrorError as error:
            raise OSError(errno.EIO, error.why) from error
        if not start:
            self.size = None if stream.headers.get("content-encoding") else content_length(stream.headers)
        return stream

    def _resume(self) -> None:
        at = self._at
        self._exit.close()
        stream = self._ask(at)
        self._pieces = stream.pieces
        if stream.status == 200:  # from the beginning: what was read already is passed over
            while at and (piece := next(self._pieces, None)) is not None:
                self._held, at = memoryview(piece)[at:], max(0, at - len(piece))
