"""What is asked of a tree beside its store: to be published, how that goes, and files of its live folder.

trees = Trees(terms, say, in_thread)
trees.begin(holding)               # in the event loop: what a server before this one left open goes on
trees.publish(held)
"""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Container
from contextlib import suppress
from typing import Any, Final

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from mirror.access import PUBLISH
from mirror.errors import MirrorError, NotFound
from mirror.serve.examine import Rejected
from mirror.serve.holding import Held, Holding, NotHeld
from mirror.serve.publications import Publications, Terms
from mirror.serve.ranges import stretch
from mirror.serve.refusals import Refusal, as_json
from mirror.signing import DIGESTED

LISTENING_MOST: Final = 16  # streams of events with one key: each takes a connection, of which there are 400
_BYTES: Final = {
    "accept-ranges": "bytes",
    "content-type": "application/octet-stream",
    "cache-control": "no-store, no-transform",
}


class _Counted(StreamingResponse):
    """A stream that counts as one of its listener's from now to its end, however that comes."""

    def __init__(self, listening: Counter[str], who: str, *of_response: Any) -> None:
        super().__init__(*of_response)
        self._listening, self._who = listening, who
        listening[who] += 1

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See `StreamingResponse`."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._listening[self._who] -= 1


class Trees:
    """The services of trees. say: told (kind, text) of publishes; in_thread: calls what blocks."""

    def __init__(self, terms: Terms, say: Callable[[str, str], None], in_thread: Callable[..., Awaitable[Any]]) -> None:
        self._terms, self._say, self._in_thread = terms, say, in_thread
        self._publications: Publications | None = None  # made in the event loop
        self._listening: Counter[str] = Counter()  # open streams of events, by key

    def begin(self, holding: Holding) -> None:
        """Have finished what was left open."""
        for name in holding.names():
            with suppress(NotHeld, MirrorError, NotFound):
                held = holding.find(name)
                if held is not None and held.is_open():
                    self.publish(held)

    async def end(self) -> None:
        """Nothing is published any more."""
        if self._publications is not None:
            await self._publications.close()

    def publish(self, held: Held) -> None:
        """Have published what waits, unless that is being done."""
        self._publications = self._publications or Publications(self._terms, self._say)
        self._publications.begin(held.name, held.tree)

    async def asked(self, held: Held, rights: Container[str]) -> Response:
        """The same for a client. Rejected."""
        if PUBLISH not in rights:
            raise Rejected("the key has not the right publish", "rights")
        if not await self._in_thread(held.waits):
            return as_json({"result": "nothing waits"})
        self.publish(held)
        return as_json({"result": "publishing"})

    def follow(self, held: Held, after: str, who: str) -> Response:
        """What is said of the newest publish behind that number. who: the name of the key that asks."""
        if not (after.isascii() and after.isdigit() and len(after) <= 18):
            raise Refusal(400, "bad-request", "it is asked behind a number")
        found = self._publications.of(held.name) if self._publications else None
        headers = {"cache-control": "no-store, no-transform", "x-accel-buffering": "no"}
        if self._listening[who] >= LISTENING_MOST:
            headers["connection"] = "close"
            return Response(b": too many listen with this key; ask again\n\n", 200, headers, "text/event-stream")
        events = found.follow(int(after)) if found else _nothing()
        return _Counted(self._listening, who, events, 200, headers, "text/event-stream")

    async def live(self, held: Held, quoted: str, asked: str, *, body: bool) -> Response:
        """A part of a file of the live folder, 1 MiB at most. quoted: its path in base64url; asked: the Range header."""
        try:
            path = base64.urlsafe_b64decode(quoted.encode("ascii") + b"=" * (-len(quoted) % 4))
        except ValueError:
            raise Refusal(400, "bad-request", "its path is no base64url") from None
        content = await self._in_thread(held.live, path)
        try:
            start, end, status = stretch(asked, content.size)
            if status == 416:
                return Response(status_code=416, headers=_BYTES | {"content-range": f"bytes */{content.size}"})
            if status == 200 and content.size > DIGESTED:
                raise Refusal(413, "too-large", f"it has {content.size:,} bytes: ask for parts of at most {DIGESTED:,}")
            end = min(end, start + DIGESTED)
            headers = _BYTES | ({"content-range": f"bytes {start}-{end - 1}/{content.size}"} if status == 206 else {})
            if not body:
                return Response(status_code=status, headers=headers | {"content-length": str(end - start)})
            data = await self._in_thread(_part, content.stream, start, end)
            if len(data) != end - start:
                raise Refusal(409, "damage", "it was changed while it was read")
            return Response(data, status, headers)
        finally:
            await self._in_thread(content.stream.close)


def _part(stream: Any, start: int, end: int) -> bytes:
    """The bytes [start, end) of an open file, as far as there are any."""
    stream.seek(start)
    parts, left = [], end - start
    while left > 0 and (data := stream.read(left)):
        parts.append(data)
        left -= len(data)
    return b"".join(parts)


async def _nothing() -> AsyncIterator[bytes]:
    """The events of a publish that there is not."""
    yield b": nothing is published\n\n"
