"""Bodies of answers: read piece by piece with a hard limit, whatever their length claims, and unpacked where a server packed them.

No answer is asked to be compressed, but some proxies do it all the same. So gzip and deflate are undone here, never by more than
the limit at a time: a small answer that unpacks to gigabytes ends at the limit.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Protocol

from mirror.errors import DamageError, MirrorError
from mirror.webclient.address import shown_url

_PIECE = 1 << 18
_EITHER = 47  # zlib: a gzip or a zlib header, whichever there is


class Readable(Protocol):
    """The part of urllib3's response that is used."""

    def read1(self, amt: int | None = None, decode_content: bool | None = None) -> bytes:
        """What has arrived, at least a byte; nothing at the end."""
        ...


def whole(response: Readable, encoding: str, limit: int, what: str, url: str) -> bytes:
    """The whole body. DamageError when it has more than `limit` bytes; MirrorError for an encoding that nobody asked for."""
    return b"".join(pieces(response, encoding, limit, what, url))


def pieces(response: Readable, encoding: str, limit: int, what: str, url: str) -> Iterator[bytes]:
    """The body in pieces of at least a byte, as they arrive."""
    left = limit
    for piece in _plain(response, encoding, what, url):
        left -= len(piece)
        if left < 0:
            raise DamageError(what, where=shown_url(url), why=f"its answer is longer than the {limit} bytes that it may have")
        yield piece


def _plain(response: Readable, encoding: str, what: str, url: str) -> Iterator[bytes]:
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        while piece := response.read1(_PIECE, decode_content=False):
            yield piece
        return
    if encoding not in ("gzip", "x-gzip", "deflate"):
        why = f"the server sends it as {encoding[:40]!r}, though it was asked for the bytes as they are"
        raise MirrorError(what, where=shown_url(url), why=why, hint="switch off compression there for these files")
    unpack = zlib.decompressobj(_EITHER)
    try:
        while packed := response.read1(_PIECE, decode_content=False):
            while packed and not unpack.eof:
                if piece := unpack.decompress(packed, _PIECE):
                    yield piece
                packed = unpack.unconsumed_tail
    except zlib.error as error:
        raise DamageError(what, where=shown_url(url), why=f"its {encoding} encoding is broken ({error})") from None
    if not unpack.eof:
        raise ConnectionError(f"its {encoding} encoding ends in the middle")  # as a broken connection: asked again
