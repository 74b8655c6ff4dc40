"""What HTTP says an answer is: the status, the headers and the stretch of bytes that a request for a file gets. Pure.

Owns conditions (RFC 9110, 13), ranges (RFC 9110, 14) and the headers of a file. Several ranges in one request are answered with the
whole file, which a server may always do. What a manifest says of headers is not trusted: known ones, in printable ASCII.

    >>> what = Served(11, b"\\x01" * 16, 1_700_000_000 * 10**9, "text/plain")
    >>> answer(what, {"range": "bytes=6-"}).status, answer(what, {"if-none-match": what.etag}).status
    (206, 304)
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime
from typing import Final

from mirror.manifest import WithContent
from mirror.site.mediatypes import media_type

MOVED: Final = "x-amz-website-redirect-location"  # where a file of this header sends people, as S3 serves it
_PASSED: Final = ("cache-control", "content-disposition", "content-encoding", "content-language")
_RANGE: Final = re.compile(r"bytes=[ \t]*([0-9]*)-([0-9]*)[ \t]*", re.IGNORECASE)
_DIGITS: Final = 18  # of an offset: more are past the end of any file
_LAST_YEAR: Final = 253_402_300_799  # seconds: the end of the year 9999, which a date header cannot go beyond


@dataclass(frozen=True, slots=True)
class Served:
    """A file as it is served. size: bytes; fingerprint: its XXH3-128; mtime: ns since 1970 or None; headers: (name in lower case,
    value) besides its type."""

    size: int
    fingerprint: bytes
    mtime: int | None
    media_type: str
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def etag(self) -> str:
        """The same as long as the bytes are the same, whatever snapshot they come from."""
        return f'"{self.fingerprint.hex()}"'

    @property
    def modified(self) -> int | None:
        """Seconds since 1970; None where there is none that HTTP can say. Never later than now, since it must not be."""
        seconds = None if self.mtime is None else self.mtime // 1_000_000_000
        return None if seconds is None or not 0 <= seconds <= _LAST_YEAR else min(seconds, int(time.time()))


@dataclass(frozen=True, slots=True)
class Answer:
    """A status, headers, and the bytes [start, end) of the file; both 0 where there is no body of it."""

    status: int
    headers: tuple[tuple[str, str], ...]
    start: int = 0
    end: int = 0


def served(entry: WithContent) -> Served:
    """A file of a snapshot as it is served."""
    named = entry.media_type if _is_clean(entry.media_type) else ""
    headers = tuple((name.lower(), value) for name, value in entry.headers if name.lower() in _PASSED and _is_clean(value))
    return Served(entry.size, entry.fingerprint, entry.mtime, named or media_type(entry.path), headers)


def moved_to(entry: WithContent) -> str:
    """Where people are sent who ask for this file; empty when they are not."""
    return next((value for name, value in entry.headers if name.lower() == MOVED and _is_clean(value)), "")


def _is_clean(value: str) -> bool:
    return bool(value) and value.isascii() and value.isprintable() and value == value.strip()


def answer(what: Served, asked: Mapping[str, str], method: str = "GET") -> Answer:
    """The answer to a GET or HEAD for a file. asked: the request's headers, names in lower case."""
    validators = [("etag", what.etag)]
    if what.modified is not None:
        validators.append(("last-modified", formatdate(what.modified, usegmt=True)))
    if refusal := _precondition(what, asked):
        kept = [(name, value) for name, value in what.headers if name == "cache-control"]
        return Answer(refusal, (*validators, *kept) if refusal == 304 else ())
    headers = [*validators, ("accept-ranges", "bytes"), ("content-type", what.media_type), *what.headers]
    stretch = _stretch(what, asked) if method == "GET" else None  # a range of a HEAD has no meaning
    if stretch is None:
        return Answer(200, (*headers, ("content-length", str(what.size))), 0, what.size)
    start, end = stretch
    if start >= end:
        return Answer(416, (("content-range", f"bytes */{what.size}"), ("content-length", "0"), ("accept-ranges", "bytes")))
    told = ("content-range", f"bytes {start}-{end - 1}/{what.size}")
    return Answer(206, (*headers, told, ("content-length", str(end - start))), start, end)


def _precondition(what: Served, asked: Mapping[str, str]) -> int:
    """304 or 412 where the conditions of a request ask for that, else 0; in the order of RFC 9110, 13.2.2."""
    if (tags := asked.get("if-match")) is not None:
        if not _names(tags, what.etag, weak=False):
            return 412
    elif (since := _seconds(asked.get("if-unmodified-since"))) is not None and what.modified is not None and what.modified > since:
        return 412
    if (tags := asked.get("if-none-match")) is not None:
        return 304 if _names(tags, what.etag, weak=True) else 0
    since = _seconds(asked.get("if-modified-since"))
    return 304 if since is not None and what.modified is not None and what.modified <= since else 0


def _names(listed: str, etag: str, *, weak: bool) -> bool:
    """Whether a list of tags names this one."""
    if listed.strip() == "*":
        return True
    tags = (tag.strip() for tag in listed.split(","))
    return any((tag.removeprefix("W/") if weak else tag) == etag for tag in tags)


def _seconds(text: str | None) -> int | None:
    """The seconds since 1970 behind a date header; None for none, and for one that is none."""
    try:
        return int(parsedate_to_datetime(text).timestamp()) if text else None
    except (ValueError, OverflowError, IndexError, TypeError):
        return None


def _stretch(what: Served, asked: Mapping[str, str]) -> tuple[int, int] | None:
    """The bytes [start, end) that are asked for: None for all of them, an empty stretch when none of them is there."""
    match = _RANGE.fullmatch(asked.get("range", ""))
    if not match or not (match[1] or match[2]) or not what.size or not _still(what, asked.get("if-range")):
        return None
    first, last = (text.lstrip("0")[: _DIGITS + 1] for text in match.groups())
    if not match[1]:
        return max(0, what.size - min(int(last or "0"), what.size)), what.size
    start, end = int(first or "0"), int(last or "0") + 1
    if match[2] and end <= start:
        return None  # no range at all: such a header counts as absent
    return min(start, what.size), min(end, what.size) if match[2] else what.size


def _still(what: Served, condition: str | None) -> bool:
    """Whether the file is the one that If-Range names."""
    if condition is None:
        return True
    if condition.strip().endswith('"'):
        return condition.strip() == what.etag
    return what.modified is not None and _seconds(condition) == what.modified


def lines(headers: tuple[tuple[str, str], ...]) -> Iterator[tuple[bytes, bytes]]:
    """Headers as they are sent."""
    return ((name.encode("latin-1"), value.encode("latin-1")) for name, value in headers)
