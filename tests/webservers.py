"""Web servers on loopback for tests: real HTTP on a real socket, whose answers a test decides, request by request.

with WebServer(lambda asked: Say(200, b"hello")) as server:
    server.url      # http://127.0.0.1:PORT
    server.asked    # what was requested so far
"""

from __future__ import annotations

import http.server
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from servers import free_ports, listens, start_on_free_ports


@dataclass(frozen=True, slots=True)
class Asked:
    """One request as it arrived. headers: names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Say:
    """One answer. length: what Content-Length claims (-1: there is none, and the end of the connection ends the body); cut: close
    behind so many bytes of the body, -1 for none; hang_up: no answer at all."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    cut: int = -1
    hang_up: bool = False


class WebServer:
    """Answers with what `speak` says. Stopped at the end of the with block, its open connections too."""

    def __init__(self, speak: Callable[[Asked], Say]) -> None:
        self.asked: list[Asked] = []
        self.connections = 0
        self._open: set[socket.socket] = set()
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30
            disable_nagle_algorithm = True

            def setup(self) -> None:
                super().setup()
                outer.connections += 1
                outer._open.add(self.connection)

            def finish(self) -> None:
                outer._open.discard(self.connection)
                super().finish()

            def log_message(self, *_: object) -> None:
                pass

            def answer(self) -> None:
                asked = Asked(self.command, self.path, {k.lower(): v for k, v in self.headers.items()}, self._body())
                outer.asked.append(asked)
                self._say(speak(asked))

            def _body(self) -> bytes:
                if self.headers.get("transfer-encoding", "") == "chunked":
                    found = b""
                    while size := int(self.rfile.readline(), 16):
                        found += self.rfile.read(size)
                        self.rfile.readline()
                    self.rfile.readline()
                    return found
                return self.rfile.read(int(self.headers.get("content-length", 0)))

            def _say(self, say: Say) -> None:
                if say.hang_up:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                    return
                self.send_response_only(say.status)
                for name, value in say.headers.items():
                    self.send_header(name, value)
                length = len(say.body) if say.length is None else say.length
                if length >= 0:
                    self.send_header("Content-Length", str(length))
                else:
                    self.close_connection = True
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(say.body if say.cut < 0 else say.body[: say.cut])
                if say.cut >= 0 or length != len(say.body):
                    self.close_connection = True

            do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_MKCOL = do_MOVE = do_PROPFIND = answer

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                pass  # clients that hang up are meant to

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        for each in list(self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def methods(self) -> list[str]:
        return [each.method for each in self.asked]


@contextmanager
def python_server(root: Path) -> Iterator[str]:
    """`python -m http.server`: it knows no ranges."""
    port, process = 0, None

    def start(attempt: int) -> subprocess.Popen[bytes]:
        nonlocal port, process
        (port,) = free_ports(1)
        command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", str(port)]
        process = subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return process

    def stop() -> None:
        assert process
        process.kill()
        process.wait()

    start_on_free_ports(start, lambda: listens(port), stop, str)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        stop()
