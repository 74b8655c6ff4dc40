"""How large a thing is, and which part of it an answer has: the headers of sizes and ranges (RFC 9110, 8.6 and 14). Pure.

>>> asked_part(10, 20), content_range({"content-range": "bytes 10-19/*"}), content_range({"content-range": "bytes */30"})
({'Range': 'bytes=10-19'}, ContentRange(start=10, end=20, total=None), ContentRange(start=0, end=0, total=30))
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

_CONTENT_RANGE = re.compile(r"bytes (?:([0-9]{1,18})-([0-9]{1,18})|\*)/([0-9]{1,18}|\*)")


class ContentRange(NamedTuple):
    """The bytes [start, end) of a thing, none where the answer has none of them; total: its size in bytes, None where that is not
    told."""

    start: int
    end: int
    total: int | None


def asked_part(start: int, end: int) -> dict[str, str]:
    """The header that asks for the bytes [start, end), of which there must be one."""
    return {"Range": f"bytes={start}-{end - 1}"}


def content_range(headers: Mapping[str, str]) -> ContentRange | None:
    """Which part an answer has; None where it does not say, or says what cannot be."""
    found = _CONTENT_RANGE.fullmatch(headers.get("content-range", ""))
    if not found:
        return None
    start, end = (int(found[1]), int(found[2]) + 1) if found[1] else (0, 0)
    return ContentRange(start, end, None if found[3] == "*" else int(found[3]))


def content_length(headers: Mapping[str, str]) -> int | None:
    """How many bytes an answer says that it has; None where it does not say so.

    >>> [content_length({"content-length": text}) for text in ("12", "", "-1", "²", "9" * 19)]
    [12, None, None, None, None]
    """
    text = headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None
