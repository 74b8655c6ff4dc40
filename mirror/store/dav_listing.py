"""What a WebDAV server says of a folder, read as it arrives and believed only as far as it must be. Pure: bytes in, values out.

`multistatus` reads the answer to PROPFIND with expat. A document type is refused before it can declare an entity, so nothing
expands; texts, depth and the number of answers have maxima. A name is taken from the last part of an href, and only where the rest
of it is the folder that was asked about: what points elsewhere is left out. The answer must be about that folder itself as well,
as RFC 4918 wants it: a server that speaks of other places all the while would else pass for an empty one.

`autoindex` reads nginx's own listing in JSON (`autoindex_format json`), for its WebDAV module knows no PROPFIND.

>>> answer = b'<m xmlns="DAV:"><response><href>/a/</href></response><response><href>/a/b</href><propstat><prop>'
>>> answer += b'<getcontentlength>3</getcontentlength></prop><status>HTTP/1.1 200 OK</status></propstat></response></m>'
>>> [(each.name, each.size) for each in multistatus([answer], "/a/", "http://example.org/a/")]
[('b', 3)]
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import NamedTuple
from urllib.parse import unquote, urlsplit
from xml.parsers import expat

from mirror.errors import DamageError, MirrorError

BYTES_MAX = 1 << 30  # of one answer: more than a million names, and a stream
_TEXT_MAX = 1 << 16
_TAG_MAX = 1 << 20  # expat holds a tag until it is complete
_DEPTH_MAX = 64
_DAV = "DAV: "
WANTED = (
    b'<?xml version="1.0" encoding="utf-8"?>\n<propfind xmlns="DAV:"><prop>'
    b"<resourcetype/><getcontentlength/><quota-available-bytes/><quota-used-bytes/></prop></propfind>"
)
_NUMBERS = {f"{_DAV}{name}": name for name in ("getcontentlength", "quota-available-bytes", "quota-used-bytes")}


class Listed(NamedTuple):
    """One name in a folder. size: in bytes, None where it was not told; a folder has none."""

    name: str
    is_folder: bool
    size: int | None


class Told(NamedTuple):
    """One `response` of a multistatus: whose, whether that is a folder, and the numbers that the server knows of it."""

    href: str
    is_folder: bool
    numbers: dict[str, int]


def multistatus(pieces: Iterable[bytes], folder: str, where: str) -> Iterator[Listed]:
    """The names in a folder, as a PROPFIND of depth 1 tells them. folder: its path as it was asked for, ending in `/`, quoted or
    not; where: for messages. DamageError for what is no such answer."""
    seen = False
    for told in responses(pieces, where):
        name = name_in(told.href, folder)
        if name == "":
            seen = True
        elif name:
            yield Listed(name, told.is_folder or urlsplit(told.href).path.endswith("/"), told.numbers.get("getcontentlength"))
    if not seen:
        why = "the server's listing does not speak of the folder that was asked about"
        raise DamageError("cannot list", where=where, why=why, hint="is there a proxy that serves it under another path?")


def responses(pieces: Iterable[bytes], where: str) -> Iterator[Told]:
    """Every `response` of a multistatus, each as soon as it is complete."""
    reader, fed = _Multistatus(), 0
    try:
        for piece in pieces:
            reader.parser.Parse(piece, False)
            yield from reader.take()
            fed += len(piece)
            if fed - max(reader.parser.CurrentByteIndex, 0) > _TAG_MAX + len(piece):
                raise _Hostile("it has a tag that does not end")
        reader.parser.Parse(b"", True)
        yield from reader.take()
    except (
        expat.ExpatError,
        _Hostile,
        LookupError,
        ValueError,
    ) as error:  # the last two: an encoding that is none, or no simple one
        why = f"what the server answers is no listing ({error})"
        raise DamageError("cannot list", where=where, why=why, hint="is it a WebDAV server?") from None


def name_in(href: str, folder: str) -> str | None:
    """The name that an href gives to something in a folder: empty for the folder itself, None for what is elsewhere.

    >>> [name_in(href, "/a b/") for href in ("/a%20b/c.json", "http://h/a%20b", "/a b/../x", "/x/y", "/a b/%2e%2e")]
    ['c.json', '', None, None, None]
    """
    try:
        path = urlsplit(href).path
        parts = [unquote(part, errors="strict") for part in path.rstrip("/").split("/")]
    except ValueError:
        return None
    *above, name = parts
    asked = [unquote(part) for part in folder.rstrip("/").split("/")]
    if parts == asked:
        return ""
    if above != asked or name in ("", ".", "..") or "/" in name or not name.isprintable():
        return None
    return name


def autoindex(data: bytes, where: str) -> list[Listed]:
    """The names in a folder, as nginx lists it with `autoindex_format json`. MirrorError for another listing."""
    try:
        found = [
            Listed(each["name"], each["type"] == "directory", each.get("size"))
            for each in json.loads(data)
            if each["type"] in ("file", "directory")
        ]
        if any(not isinstance(each.name, str) or not isinstance(each.size, int | None) for each in found):
            raise TypeError
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise no_listing(where) from None
    return [each for each in found if each.name not in ("", ".", "..") and "/" not in each.name and each.name.isprintable()]


def no_listing(where: str) -> MirrorError:
    """The error for a server that tells nobody what is in a folder."""
    why = "the server knows neither PROPFIND nor a listing in JSON"
    return MirrorError("cannot list", where=where, why=why, hint="nginx: say `autoindex on; autoindex_format json;` there")


class _Hostile(Exception):
    """What no honest listing has."""


class _Multistatus:
    """Expat's events, gathered into responses."""

    def __init__(self) -> None:
        self.parser = parser = expat.ParserCreate(namespace_separator=" ")
        parser.buffer_text = True
        parser.StartElementHandler, parser.EndElementHandler = self._start, self._end
        parser.CharacterDataHandler = self._text
        parser.StartDoctypeDeclHandler = self._doctype
        self._ready: list[Told] = []
        self._depth = 0
        self._kept: list[str] | None = None
        self._length = 0
        self._begin()

    def take(self) -> list[Told]:
        """What is complete by now."""
        ready, self._ready = self._ready, []
        return ready

    def _begin(self) -> None:
        self._href, self._is_folder, self._numbers = "", False, {}
        self._begin_part()

    def _begin_part(self) -> None:
        """A propstat: what it says counts only if its status is 200, which comes last."""
        self._part: dict[str, int] = {}
        self._part_is_folder = False
        self._status = ""

    _numbers: dict[str, int]

    def _doctype(self, *_: object) -> None:
        raise _Hostile("it has a document type")

    def _start(self, tag: str, _: dict[str, str]) -> None:
        self._depth += 1
        if self._depth > _DEPTH_MAX:
            raise _Hostile("it is nested too deeply")
        if tag == f"{_DAV}response":
            self._begin()
        elif tag == f"{_DAV}propstat":
            self._begin_part()
        elif tag == f"{_DAV}collection":
            self._part_is_folder = True
        elif tag in _NUMBERS or tag in (f"{_DAV}href", f"{_DAV}status"):
            self._kept, self._length = [], 0

    def _text(self, text: str) -> None:
        if self._kept is not None:
            self._length += len(text)
            if self._length > _TEXT_MAX:
                raise _Hostile("it has a text that is too long")
            self._kept.append(text)

    def _end(self, tag: str) -> None:
        self._depth -= 1
        text, self._kept = "".join(self._kept or ()).strip(), None
        if tag == f"{_DAV}href":
            self._href = self._href or text
        elif tag == f"{_DAV}status":
            self._status = text
        elif tag in _NUMBERS and text.isascii() and text.isdigit() and len(text) < 20:
            self._part[_NUMBERS[tag]] = int(text)
        elif tag == f"{_DAV}propstat" and " 200" in self._status:
            self._numbers |= self._part
            self._is_folder = self._is_folder or self._part_is_folder
        elif tag == f"{_DAV}response":
            self._ready.append(Told(self._href, self._is_folder, self._numbers))
