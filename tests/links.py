"""A link that breaks: a TCP proxy that cuts connections, or says something else than the server, as a test tells it.

with Link(server.port, every=700_000) as link:
    url = f"http://127.0.0.1:{link.port}/"
"""

from __future__ import annotations

import random
import socket
import threading
from collections.abc import Callable
from contextlib import suppress


class Link:
    """A TCP proxy. fault: gets the number of an answer (from 1) and its first bytes; what it gives is sent in their place and the
    connection is cut, None: all is passed on. cuts: so many connections are cut once a megabyte has come from the client; most:
    each connection is cut once it has given so many bytes to the client. every: whenever so many bytes have come from clients, the
    connection is cut that they came by; the first time after a part of that, by chance. sent, given: bytes from clients, and to
    them; heads: the first lines of what clients asked."""

    def __init__(
        self,
        port: int,
        fault: Callable[[int, bytes], bytes | None] = lambda number, data: None,
        cuts: int = 0,
        most: int = 1 << 40,
        every: int = 1 << 40,
    ) -> None:
        self._to, self._fault, self._cuts, self._most, self._every = port, fault, cuts, most, every
        self._next = random.randrange(every) if every < 1 << 40 else every
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.heads: list[bytes] = []
        self.answers = self.faults = self.sent = self.given = 0
        self._counting = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def lead_to(self, port: int) -> None:
        """From now on."""
        self._to = port

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    there = socket.create_connection(("127.0.0.1", self._to))
                except OSError:  # nobody there, as behind a proxy whose server is started anew
                    client.close()
                    continue
                threading.Thread(target=self._up, args=(client, there), daemon=True).start()
                threading.Thread(target=self._down, args=(client, there), daemon=True).start()

    def _up(self, client: socket.socket, there: socket.socket) -> None:
        passed = 0
        with suppress(OSError):
            while data := client.recv(1 << 16):
                with self._counting:
                    if data[:4] in (b"PUT ", b"GET ", b"HEAD", b"POST"):
                        self.heads.append(data.partition(b"\r\n")[0])
                    self.sent += len(data)
                    cut = self.sent >= self._next
                    if cut:
                        self._next += self._every
                        self.faults += 1
                passed += len(data)
                if cut:
                    break
                if passed > 1 << 20 and self.faults < self._cuts:
                    self.faults += 1
                    break
                there.sendall(data)
        _close(client, there)

    def _down(self, client: socket.socket, there: socket.socket) -> None:
        passed = 0
        with suppress(OSError):
            while data := there.recv(1 << 16):
                if data.startswith(b"HTTP/1.1 "):
                    with self._counting:
                        self.answers += 1
                        number = self.answers
                    instead = self._fault(number, data)
                    if instead is not None:
                        self.faults += 1
                        client.sendall(instead)
                        break
                client.sendall(data)
                with self._counting:
                    self.given += len(data)
                passed += len(data)
                if passed > self._most:
                    self.faults += 1
                    break
        _close(client, there)


def _close(*sockets: socket.socket) -> None:
    for each in sockets:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()
