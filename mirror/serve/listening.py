"""A socket, and uvicorn on it until a signal comes.

Owns the address that is listened on, and what uvicorn leaves open. A visitor who opens a connection and never finishes a request is
sent away after HEADER_SECONDS, and sooner when there are too many: who has waited longest makes room for who comes. Signals end
a run without being raised again.
"""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from mirror.errors import UsageError
from mirror.serve.pages import ABORT, SEND_SECONDS

HEADER_SECONDS: Final = 20.0
GRACE_SECONDS: Final = 3  # that answers have to end in, once the run is to end
SPARE: Final = 50  # connections that are let in when all are busy, to be told so
CONNECTIONS: Final = 1000  # at once; fewer where the system lets this process have few files open
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0: any that is free. UsageError when it cannot be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        return socket.create_server((host, port), family=family, backlog=1024)
    except UnicodeError:  # Python's idna, of a name with an empty or an endless part
        why = "that is no name of a host"
    except OSError as error:
        # Of an errno the system's own words: create_server adds the address in Python.
        number = error.errno or 0
        why = os.strerror(number).lower() if number > 0 else (error.strerror or str(error)).lower()
    hint = "name another address with --listen, such as 127.0.0.1:0 for any port that is free"
    raise UsageError("cannot listen on", where=address(host, port), why=why, hint=hint)


def address(host: str, port: int) -> str:
    """`host:port` as a URL has it."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def run(app: ASGIApp, listener: socket.socket, begun: Callable[[asyncio.AbstractEventLoop], None]) -> bool:
    """Serve until a signal comes, in the calling thread; whether one came. begun: called when visitors are let in."""
    most = _connections()
    http: Any = partial(_Connection, waiting={}, most=most)
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
        limit_concurrency=most + 1,
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    server = _Server(config, begun)
    server.run([listener])
    return server.stopped


def _connections() -> int:
    """How many connections there may be: each may have a live file open, and threads the folders above."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return CONNECTIONS if files == resource.RLIM_INFINITY else max(16, min(CONNECTIONS, files // 4))


class _Server(uvicorn.Server):
    """Ends at a signal, and does not raise it again."""

    def __init__(self, config: uvicorn.Config, begun: Callable[[asyncio.AbstractEventLoop], None]) -> None:
        super().__init__(config)
        self._begun = begun
        self.stopped = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._begun(asyncio.get_running_loop())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):  # who does not take the rest of an answer that was cut off
            connection.transport.abort()
        if tasks := list(self.server_state.tasks):
            await asyncio.wait(tasks, timeout=GRACE_SECONDS)
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
    """A connection whose visitor has HEADER_SECONDS to say what he wants. waiting: those of this server that have not said it, the
    longest first; most: connections at once."""

    def __init__(self, *given: Any, waiting: dict[_Connection, None], most: int, **named: Any) -> None:
        super().__init__(*given, **named)
        self._waiting, self._most = waiting, most
        self._patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._watch()
        if len(self.connections) > self._most:
            longest = next(iter(self._waiting))
            if longest is not self or len(self.connections) > self._most + SPARE:  # else uvicorn says 503
                longest.leave()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._wait_no_more()
        super().connection_lost(exc)

    def handle_events(self) -> None:
        super().handle_events()
        scope: Any = self.scope
        if scope is not None:
            scope.setdefault("extensions", {})[ABORT] = self.transport.abort

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch(SEND_SECONDS)  # the last of an answer may still be on its way

    def _watch(self, seconds: float = HEADER_SECONDS) -> None:
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
