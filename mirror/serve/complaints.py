"""What a server says of requests that it refused: the first few of each kind from each address, then how many more, once a minute.

A stranger can have as many requests refused as he likes. So what he makes a server write, and remember, is bounded: FIRST lines,
then one a minute, for each of MOST at a time; all that come besides are counted together. Nothing is dropped from the count.

An IPv6 address counts with all of its /64, which whoever has one of them usually has. Used by the thread of one event loop.

>>> said, minutes = [], []
>>> complaints = Complaints(said.append, lambda seconds, act: minutes.append(act))
>>> for number in range(9):
...     complaints.tell("192.0.2.1", "not-signed", f"192.0.2.1: GET /{number}: not signed")
>>> minutes.pop()()
>>> said[-2:]
['192.0.2.1: GET /4: not signed', '4 more within 60 s, the last: 192.0.2.1: GET /8: not signed']
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

FIRST: Final = 5
MOST: Final = 100
SECONDS: Final = 60


@dataclass(slots=True)
class _Kind:
    """Complaints of one kind about one address. said: as lines of their own; more: since the last line; last: what it would have
    been; quiet: none came since the last minute was over."""

    said: int = 0
    more: int = 0
    last: str = ""
    quiet: bool = False


def _in_loop(seconds: float, act: Callable[[], None]) -> Any:
    return asyncio.get_running_loop().call_later(seconds, act)


class Complaints:
    """Says them. say: told one line each; later: a parameter for tests, (seconds, what to do then)."""

    def __init__(self, say: Callable[[str], None], later: Callable[[float, Callable[[], None]], Any] = _in_loop) -> None:
        self._say, self._later = say, later
        self._kinds: dict[tuple[str, str], _Kind] = {}
        self._others = _Kind(said=FIRST)
        self._waiting = False

    def tell(self, address: str, kind: str, text: str) -> None:
        """One more. kind: what is counted together; text: the line."""
        place = (_network(address), kind)
        found = self._kinds.get(place)
        if found is None:
            found = self._kinds.setdefault(place, _Kind()) if len(self._kinds) < MOST else self._others
        found.quiet = False
        if found.said < FIRST:
            found.said += 1
            self._say(text)
        else:
            found.more, found.last = found.more + 1, text
        self._wait()

    def close(self) -> None:
        """The last line of each. May be called when the event loop has ended."""
        for each in (*self._kinds.values(), self._others):
            self._sum_up(each)
        self._kinds.clear()

    def _wait(self) -> None:
        if not self._waiting:
            self._waiting = True
            self._later(SECONDS, self._minute)

    def _minute(self) -> None:
        self._waiting = False
        for place, each in list(self._kinds.items()):
            self._sum_up(each)
            if each.quiet:
                del self._kinds[place]
            each.quiet = True
        self._sum_up(self._others)
        if self._kinds:
            self._wait()

    def _sum_up(self, kind: _Kind) -> None:
        if kind.more:
            whose = " from other addresses" if kind is self._others else ""
            self._say(f"{kind.more:,} more{whose} within {SECONDS} s, the last: {kind.last}")
            kind.more, kind.last = 0, ""


def _network(address: str) -> str:
    """What of an address counts as the same.

    >>> [_network(each) for each in ("192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1", "?")]
    ['192.0.2.1', '192.0.2.1', '2001:db8::/64', '?']
    """
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if isinstance(found, ipaddress.IPv4Address):
        return address
    return str(found.ipv4_mapped or ipaddress.ip_network((found.packed, 64), strict=False))
