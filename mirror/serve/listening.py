"""A socket, uvicorn on it until a signal comes, and the end of both.

Owns the address that is listened on, TLS, and what uvicorn leaves open. Who opens a connection and never finishes the head of a
request is sent away when its time is over (`Terms.head_seconds`), however slowly it is typed. SIGINT, SIGTERM and SIGHUP end a run
and are not raised again: no new connections, and what is being answered may end within `Terms.grace_seconds`.

What people and clients are owed differs, so who runs a server gives the terms:

    run(app, listener, Terms(head_seconds=20, connections=1000, grace_seconds=3, longest_goes=True), begun)
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp, Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

from mirror.errors import UsageError
from mirror.webclient.address import host_and_port

SEND_SECONDS: Final = 120.0  # in which a piece of an answer, and the last of it, must have been taken: 2 KB a second
SPARE: Final = 50  # connections that are let in when all are busy, to be told so
_ABORT: Final = "mirror.abort"  # in a scope's extensions: what drops the connection at once, whatever is still to be sent
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Terms:
    """How those who connect are borne with.

    head_seconds, head_bytes: for the head of a request; idle_seconds: between two requests; connections: at once, fewer where the
    system lets this process have few files open. longest_goes: when one more comes, who has waited longest without a request has
    to go, and if all are busy SPARE more are told so with 503; else who comes is sent away. grace_seconds: that answers have to end
    in, once the run is to end. certificate, private_key: PEM files for TLS, empty for plain HTTP.
    """

    head_seconds: float
    connections: int
    grace_seconds: int
    longest_goes: bool = False
    idle_seconds: int = 5
    head_bytes: int = 64 << 10
    certificate: str = ""
    private_key: str = ""


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0: any that is free. UsageError when it cannot be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=1024)
        # Connections inherit it. An answer goes out in two writes, and the second would wait 40 ms for the client's ACK of the
        # first. asyncio sets it only on sockets that were made with the number of TCP, which these are not.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listener
    except UnicodeError:  # Python's idna, of a name with an empty or an endless part
        why = "that is no name of a host"
    except OSError as error:
        # Of an errno the system's own words: create_server adds the address in Python.
        number = error.errno or 0
        why = os.strerror(number).lower() if number > 0 else (error.strerror or str(error)).lower()
    hint = "name another address with --listen, such as 127.0.0.1:0 for any port that is free"
    raise UsageError("cannot listen on", where=host_and_port(host, port), why=why, hint=hint)


def check_tls(certificate: str, key: str) -> None:
    """UsageError unless these files are a certificate and its key. Both empty: plain HTTP."""
    if key and not certificate:
        raise UsageError("cannot use --keyfile", where=key, why="there is no --certfile", hint="give both")
    if not certificate:
        return
    for path in filter(None, (certificate, key)):
        try:
            with open(path, "rb"):
                pass
        except (OSError, ValueError) as error:
            why = (getattr(error, "strerror", None) or str(error)).lower()
            raise UsageError("cannot read the certificate" if path == certificate else "cannot read the private key",
                             where=path, why=why, hint="give PEM files with --certfile and --keyfile") from None  # fmt: skip
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key or None, password=lambda: "")
    except (OSError, ssl.SSLError) as error:
        if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH":
            why = f"the key in {key or certificate} is that of another certificate"
        else:  # OpenSSL's own words for it name its source files, and nothing else
            whose = key or "the key that should be in it"
            why = f"it and {whose} are no certificate with its key that can be read without a password"
        hint = "give PEM files: --certfile with the whole chain, --keyfile without a password"
        raise UsageError("cannot use the certificate", where=certificate, why=why, hint=hint) from None


def cut_off(scope: Scope) -> None:
    """Drop the connection of a request at once, whatever is still to be sent."""
    abort = scope.get("extensions", {}).get(_ABORT)
    if abort is not None:
        abort()


def run(
    app: ASGIApp,
    listener: socket.socket,
    terms: Terms,
    begun: Callable[[], None],
    ending: Callable[[], Awaitable[None]] | None = None,
) -> bool:
    """Serve until a signal comes, in the calling thread; whether one came. begun: called in the event loop, when the first are let
    in; ending: awaited there when nobody is let in any more, before answers have to end."""
    most = _connections(terms.connections)
    http: Any = partial(_Connection, terms=terms, most=most, waiting={})
    config = uvicorn.Config(
        app,
        interface="asgi3",
        http=http,
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",  # whatever goes wrong is an event; uvicorn would print tracebacks
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=most + 1 if terms.longest_goes else None,
        h11_max_incomplete_event_size=terms.head_bytes,
        timeout_keep_alive=terms.idle_seconds,
        timeout_graceful_shutdown=terms.grace_seconds,
        ssl_certfile=terms.certificate or None,
        ssl_keyfile=terms.private_key or None,
    )
    server = _Server(config, begun, ending, terms.grace_seconds)
    server.run([listener])
    return server.stopped


def _connections(most: int) -> int:
    """How many connections there may be: each may have a file open, and threads the folders above."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return most if files == resource.RLIM_INFINITY else max(16, min(most, files // 4))


class _Server(uvicorn.Server):
    """Ends at a signal, and does not raise it again."""

    def __init__(
        self,
        config: uvicorn.Config,
        begun: Callable[[], None],
        ending: Callable[[], Awaitable[None]] | None,
        grace_seconds: int,
    ) -> None:
        super().__init__(config)
        self._begun, self._ending, self._grace_seconds = begun, ending, grace_seconds
        self.stopped = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._begun()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._ending is not None:
            for server in self.servers:
                server.close()
            await self._ending()
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):  # who does not take the rest of an answer that was cut off
            connection.transport.abort()
        if tasks := list(self.server_state.tasks):
            await asyncio.wait(tasks, timeout=self._grace_seconds)
        await asyncio.sleep(0)  # in which the loop lets go of the connections

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before: dict[signal.Signals, Any] = {}
        for number in _SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup
                before[number] = signal.signal(number, self._heard)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _heard(self, number: int, frame: Any) -> None:
        self.stopped = True
        self.handle_exit(number, frame)


class _Connection(H11Protocol):
    """A connection that is borne with on some terms. waiting: those of this server that have not said what they want, the longest
    first; most: connections at once."""

    def __init__(self, *given: Any, terms: Terms, most: int, waiting: dict[_Connection, None], **named: Any) -> None:
        super().__init__(*given, **named)
        self._terms, self._most, self._waiting = terms, most, waiting
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch(self._terms.head_seconds)
        if len(self.connections) <= self._most:
            return
        if not self._terms.longest_goes:
            self.leave()
            return
        longest = next(iter(self._waiting))
        if longest is not self or len(self.connections) > self._most + SPARE:  # else uvicorn says 503
            longest.leave()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch(self._terms.head_seconds)

    def shutdown(self) -> None:
        busy = self.cycle is not None and not self.cycle.response_complete
        if busy or self.transport.get_write_buffer_size():
            super().shutdown()
        else:
            self.transport.abort()  # nothing is on its way, and who speaks TLS may take long to say goodbye

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_more()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        super().handle_events()
        scope: Any = self.scope
        if scope is not None:
            scope.setdefault("extensions", {})[_ABORT] = self.transport.abort

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch(SEND_SECONDS)  # the last of an answer may still be on its way

    def _watch(self, seconds: float) -> None:
        """Wait for so long at most, from now or from when it began, while nothing is being answered."""
        if self not in self.connections or (self.cycle is not None and not self.cycle.response_complete):
            self._wait_no_more()
        elif self._patience is None or self._patience.when() > self.loop.time() + seconds:
            self._wait_no_more()
            self._patience = self.loop.call_later(seconds, self.leave)
            self._waiting[self] = None

    def _wait_no_more(self) -> None:
        self._waiting.pop(self, None)
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None

    def leave(self) -> None:
        """Make room for others."""
        self._wait_no_more()
        self.connections.discard(self)  # what follows comes later
        self.transport.abort()
