"""Syncs to a `mirror serve` over a link that breaks: cut in the middle of bodies, answers lost after the server has acted, turned
into 502, half-sent, late. They end well, and what is there is there once. And the way over nginx with TLS.
"""

from __future__ import annotations

import os
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from certificates import certified
from nginx import Nginx
from serving import Served
from test_serve import things

import mirror

PAGE = Path(__file__).resolve().parents[1] / "docs/http.md"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("server")) as server:
        yield server


class Link:
    """A TCP proxy. fault: gets the number of an answer (from 1) and its first bytes; what it gives is sent in their place and the
    connection is cut, None: all is passed on. cuts: so many connections are cut once a megabyte has come from the client; most:
    each connection is cut once it has given so many bytes to the client."""

    def __init__(self, port: int, fault: Callable[[int, bytes], bytes | None], cuts: int = 0, most: int = 1 << 40) -> None:
        self._to, self._fault, self._cuts, self._most = port, fault, cuts, most
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.answers = self.faults = self.sent = 0
        self._counting = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Link:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                there = socket.create_connection(("127.0.0.1", self._to))
                threading.Thread(target=self._up, args=(client, there), daemon=True).start()
                threading.Thread(target=self._down, args=(client, there), daemon=True).start()

    def _up(self, client: socket.socket, there: socket.socket) -> None:
        passed = 0
        with suppress(OSError):
            while data := client.recv(1 << 16):
                with self._counting:
                    self.sent += len(data)
                passed += len(data)
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


def late(number: int, data: bytes) -> None:
    time.sleep(0.1)


FAULTS: dict[str, tuple[Callable[[int, bytes], bytes | None], int]] = {
    "cut in a body": (lambda number, data: None, 3),
    "answers lost": (lambda number, data: b"" if number % 3 == 0 else None, 0),
    "502": (lambda number, data: b"HTTP/1.1 502 No\r\ncontent-length: 0\r\n\r\n" if number % 3 == 0 else None, 0),
    "half an answer": (lambda number, data: data[: len(data) // 2] if number % 3 == 0 else None, 0),
    "late": (late, 0),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_sync_over_a_bad_link_ends_well(fault: str, server: Served, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    for number in range(24):
        (site / f"page{number}").write_bytes(os.urandom(90_000))
    there = server.init(tmp_path.name)
    spoil, cuts = FAULTS[fault]
    for night in (1, 2):
        (site / f"new{night}").write_bytes(os.urandom(5000))
        (site / "changes").write_bytes(os.urandom(1_500_000))
        with Link(server.port, spoil, cuts) as link:
            url = f"http://127.0.0.1:{link.port}/{tmp_path.name}"
            report = mirror.sync(site, url, key_file=server.key_file, workers=0)
            assert (report.exit_code, report.snapshot) == (0, night)
            assert link.faults or fault == "late"
    kept = things(there)
    assert len([key for key in kept if key.startswith("log/")]) == 2
    assert len([key for key in kept if key.startswith("packs/")]) == 2
    assert not list((there / ".mirror-tmp").iterdir())
    assert mirror.verify(there, against=site).exit_code == 0


def test_a_restore_ends_over_a_link_that_never_lets_a_pack_through(server: Served, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "large").write_bytes(os.urandom(12 << 20))
    server.init(tmp_path.name)
    mirror.sync(site, f"{server.url}/{tmp_path.name}", key_file=server.key_file)
    with Link(server.port, lambda number, data: None, most=2_500_000) as link:
        began = time.monotonic()
        url = f"http://127.0.0.1:{link.port}/{tmp_path.name}"
        assert mirror.restore(url, tmp_path / "back", key_file=server.key_file).exit_code == 0
    assert link.faults
    assert time.monotonic() - began < 30
    assert things(tmp_path / "back") == things(site)


def test_only_what_changed_crosses(server: Served, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    for number in range(30):
        (site / f"page{number}").write_bytes(os.urandom(100_000))
    server.init(tmp_path.name)
    sent = []
    for night in range(3):
        with Link(server.port, lambda number, data: None) as link:
            assert mirror.sync(site, f"http://127.0.0.1:{link.port}/{tmp_path.name}", key_file=server.key_file).exit_code == 0
            sent.append(link.sent)
        if night == 0:
            (site / "page7").write_bytes(os.urandom(10_000))
    assert sent[0] > 3_000_000
    assert sent[1] < 40_000
    assert sent[2] < 12_000


class Front(Nginx):
    """nginx with the block of docs/http.md in front of a server."""

    def __init__(self, folder: Path, behind: int) -> None:
        (block,) = re.findall(r"^```nginx\n(server \{.*?^\})\n```$", PAGE.read_text("utf-8"), flags=re.S | re.M)
        super().__init__(folder, folder, str(block))
        self._behind, self._pems = behind, certified(folder)

    def _block(self) -> str:
        block, (certificate, key) = self.block, self._pems
        for there, here in (
            ("listen 443 ssl;", f"listen 127.0.0.1:{self.port} ssl;"),
            ("/etc/ssl/mirrors.pem", str(certificate)),
            ("/etc/ssl/mirrors.key", str(key)),
            ("http://127.0.0.1:8750", f"http://127.0.0.1:{self._behind}"),
        ):
            assert block.count(there) == 1
            block = block.replace(there, here)
        return block


def test_behind_nginx_with_tls(server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "page").write_bytes(os.urandom(30 << 20))
    there = server.init(tmp_path.name)
    with Front(tmp_path, server.port) as front:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        url = f"https://localhost:{front.port}/{tmp_path.name}"
        assert mirror.sync(site, url, key_file=server.key_file).exit_code == 0
        assert mirror.sync(site, url, key_file=server.key_file).snapshot == 0
        assert mirror.restore(url, tmp_path / "back", key_file=server.key_file).exit_code == 0
    assert things(tmp_path / "back") == things(site)
    assert mirror.verify(there, against=site).exit_code == 0
    assert "refused" not in server.log
