"""Syncs to a `mirror serve` over a link that breaks: cut in the middle of bodies, answers lost after the server has acted, turned
into 502, half-sent, late. They end well, and what is there is there once. And the way over nginx with TLS.
"""

from __future__ import annotations

import os
import random
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from fronts import Front
from links import Link
from serving import Served
from test_serve import things

import mirror
from mirror.store.open import open_store


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with Served(tmp_path_factory.mktemp("server")) as server:
        yield server


def late(number: int, data: bytes) -> None:
    time.sleep(0.1)


FAULTS: dict[str, tuple[Callable[[int, bytes], bytes | None], int]] = {
    "cut in a body": (lambda number, data: None, 3),
    "answers lost": (lambda number, data: b"" if number % 3 == 0 else None, 0),
    "502": (lambda number, data: b"HTTP/1.1 502 No\r\ncontent-length: 0\r\n\r\n" if number % 3 == 0 else None, 0),
    "half an answer": (lambda number, data: data[: len(data) // 2] if number % 3 == 0 else None, 0),
    "late": (late, 0),
}


def test_a_small_answer_comes_at_once(server: Served) -> None:
    """Not after 40 ms: the second packet of an answer must not wait until the first was acknowledged (Nagle's algorithm)."""
    server.init("at-once")
    store, times = open_store(server.spec("at-once")), []
    for _ in range(40):
        began = time.perf_counter()
        assert store.get("mirror.json", 1 << 20)
        times.append(time.perf_counter() - began)
    assert statistics.median(times) < 0.03


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


@pytest.mark.parametrize("every", [2_000_000, 700_000])
def test_a_sync_ends_over_a_link_that_never_lets_a_pack_through(every: int, server: Served, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    size = 23 << 20
    (site / "large").write_bytes(os.urandom(size))
    there = server.init(tmp_path.name)
    with Link(server.port, every=every) as link:
        url = f"http://127.0.0.1:{link.port}/{tmp_path.name}"
        report = mirror.sync(site, url, key_file=server.key_file, workers=0)
    assert (report.exit_code, report.snapshot) == (0, 1)
    assert link.faults >= size // every
    assert link.sent < size * 1.8  # what has come is not sent again
    kept = things(there)
    assert max(len(data) for key, data in kept.items() if key.startswith("packs/")) > 20 << 20
    assert sum(len(data) for data in kept.values()) < size * 1.01
    assert not list((there / ".mirror-tmp").iterdir())
    assert mirror.verify(there, against=site).exit_code == 0


def all_at_once(chance: random.Random) -> Callable[[int, bytes], bytes | None]:
    """Of three answers one is late, lost, cut in half, or said by somebody else. Not the first: who never answered is not waited
    for."""

    def spoil(number: int, data: bytes) -> bytes | None:
        what = chance.randrange(12) if number > 1 else 4
        if what == 0:
            time.sleep(0.2)
        return {1: b"", 2: data[: len(data) // 2], 3: b"HTTP/1.1 502 No\r\ncontent-length: 0\r\n\r\n"}.get(what)

    return spoil


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.long) for seed in range(2, 12))])
def test_a_sync_ends_over_a_link_that_does_all_of_it(seed: int, server: Served, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "large").write_bytes(os.urandom(5 << 20))
    for number in range(100):
        (site / f"page{number}").write_bytes(os.urandom(5000))
    there = server.init(tmp_path.name)
    with Link(server.port, all_at_once(random.Random(seed)), every=1_500_000) as link:
        url = f"http://127.0.0.1:{link.port}/{tmp_path.name}"
        report = mirror.sync(site, url, key_file=server.key_file, workers=0)
        assert (report.exit_code, report.snapshot) == (0, 1)
    with Link(server.port, all_at_once(random.Random(seed)), most=1_500_000) as link:
        url = f"http://127.0.0.1:{link.port}/{tmp_path.name}"
        assert mirror.restore(url, tmp_path / "back", key_file=server.key_file, workers=0).exit_code == 0
    assert things(tmp_path / "back") == things(site)
    kept = things(there)
    assert len([key for key in kept if key.startswith("log/")]) == 1
    assert sum(len(data) for data in kept.values()) < (6 << 20)  # each is there once
    assert not list((there / ".mirror-tmp").iterdir())
    assert mirror.verify(there, against=site).exit_code == 0


def began_at(heads: list[bytes]) -> list[int]:
    """Where the parts began that were sent."""
    return [int(found[1]) for head in heads if (found := re.search(rb"&at=([0-9]+) ", head))]


def come(there: Path) -> int:
    """The bytes of objects that have come in part."""
    with suppress(OSError):
        return sum(path.stat().st_size for path in (there / ".mirror-tmp").glob("part-*"))
    return 0


def wait_for_half(there: Path, size: int) -> None:
    give_up = time.monotonic() + 60
    while come(there) < size // 2:
        assert time.monotonic() < give_up
        time.sleep(0.005)


def test_a_server_that_is_killed_within_a_pack_gets_the_rest_of_it(tmp_path: Path) -> None:
    """Over a link that never carries it in a piece; what had come is not sent again."""
    site, size = tmp_path / "site", 12 << 20
    site.mkdir()
    (site / "large").write_bytes(os.urandom(size))
    with Served(tmp_path / "server") as server:
        there = server.init("www")
        with Link(server.port, every=2_000_000) as link:
            url = f"http://127.0.0.1:{link.port}/www"
            reports: list[mirror.SyncReport] = []
            key = {"key_file": server.key_file, "cache_dir": tmp_path / "cache"}
            running = threading.Thread(target=lambda: reports.append(mirror.sync(site, url, workers=0, **key)))
            running.start()
            wait_for_half(there, size)
            server.stop(signal.SIGKILL)
            had, sent, asked = come(there), link.sent, len(link.heads)
            assert size // 2 <= had < size
            server.start()
            link.lead_to(server.port)
            running.join(120)
        assert [report.exit_code for report in reports] == [0]
        assert min(began_at(link.heads[asked:])) >= had
        assert link.sent - sent < (size - had) * 1.8
        assert len([key for key in things(there) if key.startswith("packs/")]) == 1
        assert not list((there / ".mirror-tmp").iterdir())
        assert mirror.verify(there, against=site).exit_code == 0


def test_a_client_that_is_killed_within_a_pack_sends_the_rest_of_it(server: Served, tmp_path: Path) -> None:
    site, size = tmp_path / "site", 12 << 20
    site.mkdir()
    (site / "large").write_bytes(os.urandom(size))
    there = server.init(tmp_path.name)
    with Link(server.port, every=2_000_000) as link:
        url = f"http://127.0.0.1:{link.port}/{tmp_path.name}"
        words = ["sync", str(site), url, "--key-file", str(server.key_file), "--workers", "0"]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
        with subprocess.Popen([sys.executable, "-m", "mirror", *words], env=environment, stderr=subprocess.DEVNULL) as client:
            wait_for_half(there, size)
            client.kill()
        had, asked = come(there), len(link.heads)
        assert mirror.sync(site, url, key_file=server.key_file, workers=0).exit_code == 0
    assert min(began_at(link.heads[asked:])) >= had >= size // 2
    assert len([key for key in things(there) if key.startswith("packs/")]) == 1
    assert not list((there / ".mirror-tmp").iterdir())
    assert mirror.verify(there, against=site).exit_code == 0


def test_a_pack_is_one_request_where_the_link_is_good(server: Served, tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "large").write_bytes(os.urandom(22 << 20))
    server.init(tmp_path.name)
    asked: list[bytes] = []

    def hear(number: int, data: bytes) -> None:
        asked.append(data)

    with Link(server.port, hear) as link:
        url = f"http://127.0.0.1:{link.port}/{tmp_path.name}"
        assert mirror.sync(site, url, key_file=server.key_file, workers=0).exit_code == 0
    kept = things(server.root / tmp_path.name)
    assert len([each for each in asked if each.startswith(b"HTTP/1.1 201")]) == len(kept) - 1  # but for mirror.json
    assert not [each for each in asked if each.startswith(b"HTTP/1.1 202")]


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


def test_behind_a_proxy_that_lets_no_pack_through(server: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """nginx lets 1 MiB through if nobody has told it otherwise, and hangs up on who sends more."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "large").write_bytes(os.urandom(6 << 20))
    there = server.init(tmp_path.name)
    with Front(tmp_path, server.port, "1m") as front:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        assert mirror.sync(site, f"https://localhost:{front.port}/{tmp_path.name}", key_file=server.key_file).exit_code == 0
    assert mirror.verify(there, against=site).exit_code == 0
