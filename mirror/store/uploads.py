"""How an object gets to a `mirror serve` over a link that may break: in a piece, and where that breaks off, in parts.

Behind each break the server is asked how much it has, and that is where it goes on: so what got through is not sent again, a lost
answer costs a question, and what a run before this one has sent counts. Pure but for what the `Wire` does.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

from mirror.errors import TemporaryError
from mirror.webclient import BrokeOff
from mirror.webclient.pace import LEAST, Pace

_STUCK: Final = 16  # answers in a row that say that no more has come, above the seven it takes to get down to the least
_LOST: Final = 3  # times that a server has less than it had: it was set back, or somebody has sent it rubbish under our name


class Progress(NamedTuple):
    """How far an object has come. have: bytes; made: whether it has become one through this very request (False: there was one of
    that key), None while it has not."""

    have: int
    made: bool | None = None


class Wire(Protocol):
    """The requests about one object. TemporaryError, of that BrokeOff where it is not known what came of it."""

    def whole(self, resend: bool) -> bool:
        """Send it in a piece: whether it was created. resend: with patience, see `WebClient.request`."""
        ...

    def have(self) -> Progress:
        """How far it has come."""
        ...

    def add(self, start: int, end: int, resend: bool) -> Progress:
        """Send the bytes [start, end) of it; none, to have it made from what is there. How far it has come then, which is another
        place where the server has more or less than `start` bytes."""
        ...


def upload(wire: Wire, size: int, pace: Pace, where: str) -> bool:
    """Have an object of `size` bytes created. False when there was one of that key, perhaps this one, by an answer that was lost.
    pace: what is known of the link. TemporaryError when nothing gets through."""
    if pace.next(size) == size:
        try:
            return wire.whole(resend=size <= LEAST)
        except BrokeOff:
            if size <= LEAST:
                raise
            pace.broke(size)
    said, stuck, lost = wire.have(), 0, 0
    while said.made is None:
        at = said.have
        until = at + pace.next(size - at)
        try:
            said = wire.add(at, until, resend=stuck > 0 and until - at <= LEAST)
            pace.passed(until - at)
        except BrokeOff:
            pace.broke(until - at)
            said = wire.have()
        if said.made is None:
            stuck, lost = (stuck + 1 if said.have == at else 0), lost + (said.have < at)
            if stuck > _STUCK or lost > _LOST:
                why = f"of {size:,} bytes the server has {said.have:,}, and that gets no more, whatever it is sent"
                raise TemporaryError("cannot write", where=where, why=why, hint="look at the link, and at the log of the server")
    return said.made
