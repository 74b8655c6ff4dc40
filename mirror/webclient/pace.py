"""How much a link carries in one request, learnt from what broke off: large bodies go in stretches that get through.

Everything is asked for, or sent, in a piece until that breaks off. Then in halves, and halves of these, down to `LEAST`; when some
have got through in a row, in larger ones again. Where `LEAST` bytes have broken off, the next try has all the patience that there
is, which so begins anew with whatever got through.

>>> pace = Pace()
>>> pace.next(32 << 20), pace.broke(32 << 20), pace.next(32 << 20) >> 20
(33554432, None, 16)
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from mirror.errors import TemporaryError
from mirror.webclient import BrokeOff

LEAST: Final = 256 << 10  # bytes
_IN_A_ROW: Final = 8  # stretches that get through before larger ones are tried
_NO_LIMIT: Final = 64 << 20  # bytes: no object is larger


class Pace:
    """What one link carries, one way. Any thread may use it: what one learns the others know."""

    def __init__(self) -> None:
        self._most, self._row = _NO_LIMIT, 0
        self._learning = threading.Lock()

    def next(self, left: int) -> int:
        """How many of the bytes that are left to ask for in one request."""
        return left if self._most >= _NO_LIMIT else min(left, self._most)

    def passed(self, size: int) -> None:
        """A stretch of so many bytes got through."""
        with self._learning:
            if size >= self._most:  # what is less says nothing
                self._row += 1
                if self._row >= _IN_A_ROW:
                    self._most, self._row = 2 * self._most, 0

    def broke(self, size: int) -> None:
        """One did not."""
        with self._learning:
            self._most, self._row = min(self._most, max(LEAST, size // 2)), 0


def in_stretches(pace: Pace, start: int, end: int, ask: Callable[[int, int, bool], bytes | None]) -> bytes | None:
    """The bytes [start, end), of which there is one at least: what has come is not asked for again.

    ask(start, end, resend): these bytes; None to give up, then there are none at all. resend: with all patience; else BrokeOff as
    soon as it broke off (`WebClient.request`)."""
    parts, at, stuck = [], start, False
    while at < end:
        until = at + pace.next(end - at)
        try:
            part = ask(at, until, stuck)
        except BrokeOff:
            if stuck:
                raise
            stuck = until - at <= LEAST
            pace.broke(until - at)
            continue
        stuck = False
        if part is None:
            return None
        pace.passed(until - at)
        parts.append(part)
        at = until
    return parts[0] if len(parts) == 1 else b"".join(parts)


def in_a_piece(whole: Callable[[bool], bytes], size: Callable[[], int | None], stretches: Callable[[int], bytes | None]) -> bytes:
    """All of a thing whose size is not known: in a piece, and where that broke off, in stretches if it is large.

    whole(resend): all of it; size(): in bytes, None where that is not told; stretches(size): all of it, None where it cannot be had
    so."""
    try:
        return whole(False)
    except BrokeOff as broke:
        try:
            found = size()
        except TemporaryError:
            raise broke from None  # it has the server's own words, which an answer to HEAD has not
        data = stretches(found) if found is not None and found > LEAST else None
        return whole(True) if data is None else data
