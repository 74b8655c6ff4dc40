"""Requests in, answers out: a snapshot as a web site, for uvicorn.

Owns which status and which body a request gets. All that may wait (the store, a disk, a block to be unpacked) happens in a pool of
threads; the loop only passes bytes on. A small file is proved to its end before its first byte is sent. Where a large one turns out
damaged in its middle, the connection is closed, so that nobody takes half a file for a whole one.

What strangers are told of a failure is that there is one. What failed, and the next step, is told to whoever runs the server.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from typing import Final, TypeVar

import anyio
import anyio.to_thread
from anyio.abc import TaskGroup
from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope, Send

from mirror.errors import DamageError, MirrorError, NotFound
from mirror.events import Answered, Event, Notice
from mirror.keys import show
from mirror.manifest import File, Page, Redirect
from mirror.serve import answers
from mirror.serve.contents import PIECE, Contents
from mirror.serve.listening import SEND_SECONDS, cut_off
from mirror.serve.paths import AddSlash, Paths, View, path_of, url_of
from mirror.serve.snapshots import Snapshots

T = TypeVar("T")
METHODS: Final = ("GET", "HEAD")
_REDIRECTS: Final = (301, 302, 303, 307, 308)
THREADS: Final = 24  # at once; each may hold a block as it is stored and as it is plain
_TOLD: Final = 1000  # failures that are told apart, so that a page that is damaged is told once and not at every visit
_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>
<body><h1>{title}</h1><p>{text}</p></body></html>
"""
_DAMAGED: Final = (
    "This file cannot be read from the mirror: what is stored is not what was stored. If you run this server: it has said what is "
    "damaged; <code>mirror verify</code> on the target names all that is affected, and an older snapshot (<code>--at</code>) may "
    "have the file whole."
)
_UNREACHABLE: Final = "The place where this site is kept cannot be reached at the moment. Please try again in a minute."


@dataclass(slots=True)
class Reply:
    """What is sent: a status, headers, and a body in pieces; first: of them, ready to be sent."""

    status: int
    headers: tuple[tuple[str, str], ...]
    first: bytes = b""
    rest: Iterator[bytes] | None = None
    path: bytes = b""


class Pages:
    """The ASGI application. say: told events, by any thread; each: whether every answer is to be told as well."""

    def __init__(
        self, snapshots: Snapshots, paths: Paths, contents: Contents, say: Callable[[Event], None], *, each: bool = False
    ) -> None:
        self._snapshots, self._paths, self._contents = snapshots, paths, contents
        self._say, self._each = say, each
        self._failures: set[str] = set()
        self._threads = anyio.CapacityLimiter(THREADS)
        self.count = Count()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        began = time.monotonic()
        visit = Visit(send)
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(_until_gone, receive, group)
                try:
                    await self._answer(scope, visit)
                except TimeoutError:  # who does not take what he asked for keeps others away
                    visit.broken = True
                    cut_off(scope)
                except Exception as error:  # noqa: BLE001 - uvicorn closes the connection; somebody must hear why
                    visit.broken = True
                    self._failed(scope.get("raw_path") or b"", error)
                group.cancel_scope.cancel()
        finally:
            self.count.answers += 1
            self.count.bytes += visit.sent
            self.count.failures += visit.status >= 500 or visit.broken
            if self._each:
                target = (scope.get("raw_path") or b"").decode("latin-1")
                seconds = round(time.monotonic() - began, 6)
                self._say(Answered(scope["method"], target[:2000], visit.status, visit.sent, seconds, not visit.broken))

    async def _answer(self, scope: Scope, visit: Visit) -> None:
        method, headers = scope["method"], Headers(scope=scope)
        target = scope.get("raw_path") or b""
        query = scope.get("query_string") or b""
        reply = await self._in_thread(partial(self._reply, method, target, query, headers))
        await visit.start(reply)
        if reply.rest is None or method == "HEAD":
            await visit.end(reply.first if method != "HEAD" else b"")
            return
        piece = reply.first
        while True:
            await visit.send(piece)
            try:
                following = await self._in_thread(partial(next, reply.rest, None))
            except Exception as error:  # noqa: BLE001 - whatever it is, half a file must not look like a whole one
                self._failed(reply.path, error)
                visit.broken = True
                return  # uvicorn closes the connection of an answer that has no end
            if following is None:
                await visit.end(b"")
                return
            piece = following

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await anyio.to_thread.run_sync(call, limiter=self._threads)

    # -- in a thread ---------------------------------------------------------------------------------------------

    def _reply(self, method: str, target: bytes, query: bytes, asked: Headers) -> Reply:
        """The answer to a request, its first piece proved."""
        if method not in METHODS:
            return _page(405, "Only GET and HEAD are understood here.", (("allow", ", ".join(METHODS)),))
        path = path_of(target)
        view = self._snapshots.look()
        try:
            found = self._paths.find(view, path) if path is not None else None
            if isinstance(found, AddSlash):
                where = url_of(found.path) + ("?" + query.decode("latin-1") if query else "")
                return _moved(301, where)
            if isinstance(found, Redirect):
                return _moved(found.status if found.status in _REDIRECTS else 302, found.location)
            if found is None:
                return self._missing(view, method)
            if where := answers.moved_to(found):
                return _moved(301, where)
            return self._file(view, found, method, asked)
        except Exception as error:  # noqa: BLE001 - a visitor gets a page whatever it is, and the operator hears of it
            self._failed(path or b"", error)
            if isinstance(error, DamageError | NotFound):
                return _page(500, _DAMAGED)
            if isinstance(error, MirrorError | OSError):
                return _page(503, _UNREACHABLE, (("retry-after", "30"),))
            return _page(500, "Something went wrong here. Whoever runs this server has been told.")

    def _file(self, view: View, entry: File | Page, method: str, asked: Headers) -> Reply:
        what = answers.served(entry)
        answer = answers.answer(what, asked, method)
        reply = Reply(answer.status, answer.headers, path=entry.path)
        if isinstance(entry, Page) and answer.status == 200 and 400 <= entry.status < 600:
            reply.status = entry.status
        if answer.end > answer.start and method != "HEAD":
            self._begin(reply, view, entry, answer.start, answer.end)
        return reply

    def _begin(self, reply: Reply, view: View, entry: File | Page, start: int, end: int) -> None:
        pieces = self._contents.pieces(entry, start, end, partial(self._snapshots.elsewhere, view.number))
        reply.first = next(pieces, b"")
        if end - start <= PIECE:
            # One piece, or two where chunks do not end with it: all of it is proved before the first byte goes.
            reply.first += b"".join(pieces)
        else:
            reply.rest = pieces

    def _missing(self, view: View, method: str) -> Reply:
        """404, with the site's own page for that if it has one."""
        page = self._paths.not_found(view)
        if page is None:
            return _page(404, "There is no such page here.")
        headers = (("content-type", answers.served(page).media_type), ("content-length", str(page.size)))
        reply = Reply(404, headers, path=page.path)
        if method != "HEAD" and page.size:
            self._begin(reply, view, page, 0, page.size)
        return reply

    def _failed(self, path: bytes, error: Exception) -> None:
        """Tell of a failure once."""
        text = f"{show(path)}: {error if isinstance(error, MirrorError) else f'{type(error).__name__}: {error}'}"
        if text not in self._failures and len(self._failures) < _TOLD:
            self._failures.add(text)
            self._say(Notice("damage", text) if isinstance(error, DamageError | NotFound) else Notice("not-served", text))


@dataclass(slots=True)
class Count:
    """What was answered: how often, how many bytes of bodies, how many of the answers were failures of ours."""

    answers: int = 0
    bytes: int = 0
    failures: int = 0


@dataclass(slots=True)
class Visit:
    """One answer on its way. Every step must have been taken within SEND_SECONDS, else TimeoutError. broken: it was cut off."""

    _send: Send
    status: int = 0
    sent: int = 0  # bytes of the body
    broken: bool = False

    async def start(self, reply: Reply) -> None:
        """Status and headers."""
        self.status = reply.status
        headers = reply.headers
        if not any(name == "content-length" for name, _ in headers) and reply.status not in (204, 304):
            headers = (*headers, ("content-length", str(len(reply.first))))
        await self._pass({"type": "http.response.start", "status": reply.status, "headers": list(answers.lines(headers))})

    async def send(self, piece: bytes) -> None:
        """A piece of the body; there are more."""
        await self._pass({"type": "http.response.body", "body": piece, "more_body": True})
        self.sent += len(piece)

    async def end(self, piece: bytes) -> None:
        """The last piece."""
        await self._pass({"type": "http.response.body", "body": piece, "more_body": False})
        self.sent += len(piece)

    async def _pass(self, message: Message) -> None:
        with anyio.fail_after(SEND_SECONDS):
            await self._send(message)


async def _until_gone(receive: Receive, group: TaskGroup) -> None:
    """End an answer when nobody waits for it any more: a visitor who leaves must not have a film read to its end."""
    while (await receive())["type"] != "http.disconnect":
        pass
    group.cancel_scope.cancel()


def _moved(status: int, where: str) -> Reply:
    """A redirect."""
    clean = where if where.isascii() and where.isprintable() else url_of(where.encode("utf-8", "surrogateescape"))
    return _page(status, "It is somewhere else.", (("location", clean),))


def _page(status: int, text: str, headers: tuple[tuple[str, str], ...] = ()) -> Reply:
    """A page of our own."""
    title = f"{status} {HTTPStatus(status).phrase}"
    body = _PAGE.format(title=title, text=text).encode()
    sized = (("content-type", "text/html; charset=utf-8"), ("content-length", str(len(body))), ("cache-control", "no-store"))
    return Reply(status, (*headers, *sized), body)
