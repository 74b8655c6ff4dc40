"""A socket, uvicorn on it, and the end of both: TLS, connections that dawdle, signals.

A client has HEAD_SECONDS to say what it wants, however slowly it types; then the connection is cut. SIGTERM, SIGINT and SIGHUP end
the run: no new connections, what is being answered may end within GRACE_SECONDS.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from mirror.errors import UsageError
from mirror.serve.protocol import ABORT

HEAD_SECONDS: Final = 15.0
HEAD_BYTES: Final = 16 << 10
IDLE_SECONDS: Final = 30
GRACE_SECONDS: Final = 10
CONNECTIONS: Final = 400
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0: any that is free. UsageError when it cannot be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        return socket.create_server((host, port), family=family, backlog=512)
    except UnicodeError:  # Python's idna, of a name with an empty or an endless part
        why = "that is no name of a host"
    except OSError as error:
        # Of an errno the system's own words: create_server adds the address in Python.
        number = error.errno or 0
        why = os.strerror(number).lower() if number > 0 else (error.strerror or str(error)).lower()
    hint = "name another address with --listen, such as 127.0.0.1:0 for any port that is free"
    raise UsageError("cannot listen on", where=f"{host}:{port}", why=why, hint=hint)


def check_tls(certificate: str, key: str) -> None:
    """UsageError unless these files are a certificate and its key."""
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


def run(app: ASGIApp, listener: socket.socket, certificate: str, key: str, patience: float, begun: Callable[[], None]) -> None:
    """Serve until a signal comes, in the calling thread. patience: seconds for a request's head, HEAD_SECONDS at most; begun:
    called when clients are let in."""

    class Connection(_Connection):
        head_seconds = min(HEAD_SECONDS, patience)

    config = uvicorn.Config(
        app,
        interface="asgi3",
        http=Connection,
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",  # what matters is said as an event; uvicorn would print tracebacks
        access_log=False,
        proxy_headers=False,
        server_header=False,
        h11_max_incomplete_event_size=HEAD_BYTES,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=GRACE_SECONDS,
        ssl_certfile=certificate or None,
        ssl_keyfile=key or None,
    )
    _Server(config, begun).run([listener])


class _Server(uvicorn.Server):
    """Ends at a signal, and does not raise it again."""

    def __init__(self, config: uvicorn.Config, begun: Callable[[], None]) -> None:
        super().__init__(config)
        self._begun = begun

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._begun()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        heard = [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]  # nohup
        before: dict[signal.Signals, Any] = {number: signal.signal(number, self.handle_exit) for number in heard}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


class _Connection(H11Protocol):
    """A connection whose client has HEAD_SECONDS for each request line with its headers."""

    head_seconds = HEAD_SECONDS
    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > CONNECTIONS:
            transport.abort()
        else:
            self._patience = self.loop.call_later(self.head_seconds, transport.abort)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._be_patient()
        elif self._patience is None:  # a next request has begun, and its head is not whole
            self._patience = self.loop.call_later(self.head_seconds, self.transport.abort)

    def handle_events(self) -> None:
        super().handle_events()
        if self.scope is not None:
            extensions: dict[str, Any] = self.scope.setdefault("extensions", {})
            extensions[ABORT] = self.transport.abort

    def shutdown(self) -> None:
        if self.cycle is None or self.cycle.response_complete:
            self.transport.abort()  # nothing is on its way, and a client with TLS may take long to say goodbye
        else:
            super().shutdown()

    def connection_lost(self, exc: Exception | None) -> None:
        self._be_patient()
        super().connection_lost(exc)

    def _be_patient(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
