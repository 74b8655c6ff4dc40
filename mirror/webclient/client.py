"""Requests to one web server, over urllib3: a pool that threads share, time-outs, patience, redirects.

Patience is that of `mirror.store.s3`: what fails for a passing reason (no connection, 429 with the time that Retry-After asks for,
500, 502, 503, 504, a body that breaks off) is asked again for up to a minute, but only once this server has answered something: an
endpoint that is dead from the start is reported within 15 s. Reads fail when nothing comes for 15 s, writes when there is no
answer for ten minutes. Before the first request of all is a write, somebody is asked whether he is there.

A body goes out in small pieces: a socket's time-out counts for each call that sends, so 32 MiB in one would have to pass in 10 s.

Redirects are followed for reads that nobody signed, five times, never from https to http; all others are told, with the place.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from mirror.errors import MirrorError, NotFound
from mirror.webclient import Answer, Body, BrokeOff, Payload, Sign, Stream
from mirror.webclient.address import base_url, check_plain, led_to, may_follow
from mirror.webclient.answers import PASSING, REDIRECTS, asked_to_wait, error_for, failure, no_answer, redirected
from mirror.webclient.bodies import pieces, whole
from mirror.webclient.proxies import Proxies, login_in

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, PoolManager

T = TypeVar("T")

CONNECT_SECONDS = 7  # for each address of a host, and most have two
READ_SECONDS = 15
WRITE_SECONDS = 600
PATIENCE_SECONDS = 60
DIRECT = Proxies()
_HOPS = 5
_READS = ("GET", "HEAD")
_ASKS = (*_READS, "OPTIONS", "PROPFIND")  # what changes nothing: their answers come soon
_NOT_ACTED_ON = (429, 503)
_SEND_PIECE = 1 << 16
_ERROR_BODY = 1 << 16


@dataclass(frozen=True, slots=True)
class _Question:
    method: str
    url: str
    what: str
    headers: Mapping[str, str]
    body: Body
    accept: Collection[int]
    resend: bool


class WebClient:
    """A client for all below one URL. Any thread may use it; close it, or use it as a context manager.

    url: http(s)://HOST/PATH. sign: see `mirror.webclient.Sign`; where there is one, no redirect is followed. insecure: plain http
    to another machine is accepted. proxies: by way of whom servers are asked. connections: kept open for threads. answered: this
    server has answered somebody else of this run, so patience begins with the first request. `patience_seconds` is a parameter for
    tests. UsageError for a URL that cannot be one, or that needs `insecure`, and for a proxy that is none.
    """

    def __init__(
        self,
        url: str,
        *,
        sign: Sign | None = None,
        insecure: bool = False,
        proxies: Proxies = DIRECT,
        connections: int = 16,
        answered: bool = False,
        patience_seconds: float = PATIENCE_SECONDS,
    ) -> None:
        import urllib3

        self.url = base_url(url)
        proxies.for_url(self.url)  # one that is none is told before anything is asked
        check_plain(self.url, insecure)
        self._sign, self._insecure, self._patience = sign, insecure, patience_seconds
        self._proxies, self._connections = proxies, connections
        self._pools: dict[str, urllib3.PoolManager] = {}
        self._opening = threading.Lock()
        self._reading = urllib3.Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS)
        self._writing = urllib3.Timeout(connect=CONNECT_SECONDS, read=WRITE_SECONDS)
        self._answered = answered  # only ever goes from False to True, so threads may race
        self._reaching = threading.Lock()

    def __enter__(self) -> WebClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. May be called twice."""
        with self._opening:
            for pool in self._pools.values():
                pool.clear()

    def where(self, path: str) -> str:
        """The URL of a path below this client's; of the place itself for the empty path."""
        return f"{self.url}/{path}" if path else self.url

    def request(
        self,
        method: str,
        path: str = "",
        *,
        what: str,
        limit: int = 1 << 20,
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        accept: Collection[int] = (200,),
        resend: bool = True,
        limits: Mapping[int, int] | None = None,
    ) -> Answer:
        """One request, asked again while that may help; its answer with the whole body, of at most `limit` bytes.

        path: below the URL, with all but its slashes quoted as `urllib.parse.quote` does. what: what is said to be impossible when
        it fails ("cannot read"). accept: statuses that are answers. resend: False where a second try could do harm, or had better
        be for less; then one of which it is not known whether the server acted on it is not repeated (BrokeOff). limits: another
        limit for the body of a status.

        NotFound for 404 and 410 (if not in `accept`); DamageError when the body is longer than `limit`, which is found without
        reading on; AuthError for 401 and 403, TemporaryError, UsageError for a redirect, MirrorError for other statuses; nothing of
        urllib3's own.
        """

        def take(response: BaseHTTPResponse, url: str, sent: Mapping[str, str], tries: int) -> Answer:
            with _closing(response):
                most = (limits or {}).get(response.status, limit)
                data = whole(response, _encoding(response), most, what, url) if method != "HEAD" else b""
                return Answer(response.status, response.headers, url, data, sent, tries)

        return self._ask(_Question(method, self.where(path), what, headers or {}, body, accept, resend), take)

    @contextmanager
    def stream(
        self,
        method: str,
        path: str = "",
        *,
        what: str,
        limit: int,
        headers: Mapping[str, str] | None = None,
        body: Body = None,
        accept: Collection[int] = (200,),
    ) -> Iterator[Stream]:
        """As `request`, but the body comes in pieces: patience ends where it begins, and a break in it is a TemporaryError."""

        def take(response: BaseHTTPResponse, url: str, sent: Mapping[str, str], tries: int) -> tuple[BaseHTTPResponse, Stream]:
            found = _told(pieces(response, _encoding(response), limit, what, url), what, url)
            return response, Stream(response.status, response.headers, url, found, sent, tries)

        response, stream = self._ask(_Question(method, self.where(path), what, headers or {}, body, accept, True), take)
        with _closing(response):
            yield stream

    def _ask(self, ask: _Question, take: Callable[[BaseHTTPResponse, str, Mapping[str, str], int], T]) -> T:
        from urllib3.exceptions import HTTPError

        if ask.method not in _ASKS:
            self._reach(ask.what)
        give_up, pause, tries = time.monotonic() + self._patience, 0.25, 0
        while True:
            tries, wait, trail = tries + 1, 0.0, [ask.url]
            error: MirrorError
            try:
                response, url, sent = self._send(ask, trail)
                self._answered = True
                if response.status in ask.accept:
                    return take(response, url, sent, tries)
                error = _refusal(ask, response, url)
                passing = response.status in PASSING
                acted = response.status not in _NOT_ACTED_ON and ask.method not in _ASKS
                wait = asked_to_wait(response.headers)
            except (HTTPError, OSError, ValueError) as broken:
                found = failure(broken)
                error = no_answer(found, ask.what, trail[-1])
                error.__cause__ = broken
                passing, acted = self._answered and found.passing, found.kind != "connect"
            if passing and acted and not ask.resend:
                raise BrokeOff(error.what, where=error.where, why=error.why, hint=error.hint) from error
            wait = max(wait, pause * random.uniform(0.5, 1.0))
            if not passing or time.monotonic() + wait >= give_up:
                raise error
            time.sleep(wait)
            pause = min(pause * 2, 8.0)

    def _send(self, ask: _Question, trail: list[str]) -> tuple[BaseHTTPResponse, str, dict[str, str]]:
        """Send it once, and once more to each place that redirects lead to: (response, where it came from, headers sent).
        trail: gets those places."""
        url, hops = ask.url, 0
        headers = {"User-Agent": "mirror", "Accept-Encoding": "identity", **ask.headers}
        while True:
            sent = headers | _length(ask.body)
            if self._sign:
                sent |= self._sign(ask.method, url, sent, None if callable(ask.body) else ask.body)
            response = self._pool_for(url).request(
                ask.method,
                url,
                body=_outgoing(ask.body),
                headers=sent,
                redirect=False,
                preload_content=False,
                decode_content=False,
                timeout=self._reading if ask.method in _ASKS else self._writing,
            )
            if response.status not in REDIRECTS or response.status in ask.accept:
                return response, url, sent
            to = led_to(url, response.headers.get("location", ""))
            if self._sign or ask.method not in _READS or not to:
                return response, url, sent  # a refusal like any other
            _leave(response)
            hops += 1
            if hops > _HOPS:
                raise redirected(response.headers, ask.what, url, f"the {hops}th time")
            if not may_follow(url, to, self._insecure):
                raise redirected(response.headers, ask.what, url, "which is not safe")
            if urlsplit(to).netloc != urlsplit(url).netloc:
                headers = {name: value for name, value in headers.items() if name.lower() not in ("authorization", "cookie")}
            url = to
            trail.append(url)

    def _pool_for(self, url: str) -> PoolManager:
        """The connections by way of the proxy that a URL has, or of none: a redirect may lead to where there is another."""
        import urllib3

        proxy = self._proxies.for_url(url)
        with self._opening:
            if proxy not in self._pools:
                given: Any = {"num_pools": 4, "maxsize": self._connections, "retries": False}
                if not proxy:
                    self._pools[proxy] = urllib3.PoolManager(**given)
                else:
                    login = login_in(proxy)
                    headers = urllib3.make_headers(proxy_basic_auth=login) if login else None
                    self._pools[proxy] = urllib3.ProxyManager(proxy, proxy_headers=headers, **given)
            return self._pools[proxy]

    def _reach(self, what: str) -> None:
        """Before the first request of all waits ten minutes for its answer: see that somebody answers."""
        with self._reaching:
            if not self._answered:
                every = range(100, 600)
                self._ask(_Question("HEAD", self.url, what, {}, None, every, True), lambda response, *_: _leave(response))


def _refusal(ask: _Question, response: BaseHTTPResponse, url: str) -> MirrorError:
    """What an answer that is none of those expected means. NotFound is raised."""
    said = b""
    with _closing(response), suppress(Exception):  # the status says enough
        said = whole(response, _encoding(response), _ERROR_BODY, ask.what, url)
    if response.status in (404, 410):
        raise NotFound(url)
    return error_for(response.status, response.headers, said, ask.what, url)


def _encoding(response: BaseHTTPResponse) -> str:
    # A part of a packed body cannot be unpacked: who asks for parts looks at this header.
    return "" if response.status == 206 else response.headers.get("content-encoding", "")


def _length(body: Body) -> dict[str, str]:
    if body is None or callable(body):
        return {}
    return {"Content-Length": str(body.nbytes if isinstance(body, memoryview) else len(body))}


def _outgoing(body: Body) -> Any:
    if body is None:
        return None
    return body() if callable(body) else _cut(body)


def _cut(body: Payload) -> Iterator[memoryview]:
    view = memoryview(body).cast("B")
    for start in range(0, len(view), _SEND_PIECE):
        yield view[start : start + _SEND_PIECE]


@contextmanager
def _closing(response: BaseHTTPResponse) -> Iterator[None]:
    """Give the connection back: to the pool where the body was read to its end, else closed."""
    try:
        yield
    finally:
        _leave(response)


def _leave(response: BaseHTTPResponse) -> None:
    if response.length_remaining == 0:
        response.drain_conn()  # nothing is left to come, but http.client has to be told
    response.close()  # after the end of a body the connection is in the pool already


def _told(found: Iterator[bytes], what: str, url: str) -> Iterator[bytes]:
    """Pieces of a body, with what breaks told as ours."""
    from urllib3.exceptions import HTTPError

    try:
        yield from found
    except (HTTPError, OSError, ValueError) as broken:
        raise no_answer(failure(broken), what, url) from broken
