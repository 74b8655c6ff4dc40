"""Which bytes a Range header asks for."""

from __future__ import annotations

import re
from typing import Final

_RANGE: Final = re.compile(r"bytes=([0-9]{1,15})-([0-9]{0,15})")


def stretch(asked: str, size: int) -> tuple[int, int, int]:
    """(start, end, status) of the bytes that a Range header asks for. What is no simple range is not heeded, as HTTP allows.

    >>> stretch("bytes=2-4", 10), stretch("bytes=8-", 10), stretch("", 10), stretch("bytes=10-", 10)
    ((2, 5, 206), (8, 10, 206), (0, 10, 200), (0, 0, 416))
    """
    match = _RANGE.fullmatch(asked)
    if not match or (match[2] and int(match[2]) < int(match[1])):
        return 0, size, 200
    start, end = int(match[1]), min(int(match[2]) + 1, size) if match[2] else size
    return (start, end, 206) if start < size else (0, 0, 416)
