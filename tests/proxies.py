"""A forward proxy for tests, on loopback: CONNECT for https, whole URLs for http. All names lead to where a test says.

with Proxy({"mirrors.example.test": server.port}) as proxy:
    proxy.url       # http://127.0.0.1:PORT
    proxy.asked     # ["CONNECT mirrors.example.test:443", ...]
"""

from __future__ import annotations

import base64
import socket
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import Self
from urllib.parse import urlsplit


class Proxy:
    """One proxy. ports: of this machine, by the name of the host that is asked for; login: `NAME:PASSWORD` that it wants to be
    told."""

    def __init__(self, ports: Mapping[str, int], login: str = "") -> None:
        self._ports, self._login = ports, login
        self.asked: list[str] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._run(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        for each in (self._listener, *self._open):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join(10)

    def _run(self, function: object, *given: object) -> None:
        thread = threading.Thread(target=function, args=given, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._open.add(client)
                self._run(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        """One request of a client, and whatever follows on that connection to the same server."""
        with suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                piece = client.recv(65536)
                if not piece:
                    return
                head += piece
            line, _, rest = head.partition(b"\r\n")
            method, url, _ = line.decode().split(" ")
            self.asked.append(f"{method} {url}")
            told = base64.b64encode(self._login.encode())
            if self._login and b"proxy-authorization: basic " + told.lower() not in rest.lower():
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                client.shutdown(socket.SHUT_RDWR)
                return
            place = urlsplit(f"//{url}" if method == "CONNECT" else url)
            port = self._ports.get(place.hostname or "")
            if port is None:
                client.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                client.shutdown(socket.SHUT_RDWR)
                return
            server = socket.create_connection(("127.0.0.1", port))
            self._open.add(server)
            if method == "CONNECT":
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:  # one request a connection, so that the next comes with its own line
                path = place.path + (f"?{place.query}" if place.query else "")
                server.sendall(f"{method} {path} HTTP/1.1\r\nConnection: close\r\n".encode() + rest)
            self._run(self._pass_on, client, server)
            self._pass_on(server, client)

    def _pass_on(self, source: socket.socket, to: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(65536):
                to.sendall(piece)
            to.shutdown(socket.SHUT_RDWR)
