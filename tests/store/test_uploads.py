"""Objects on their way to a `mirror serve` that answers what it likes, with the right signature: whatever it says, an upload ends.
And what is learnt of a link. Uploads to the real one over links that break are in test_serve_links.py.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from webservers import Asked, Say, WebServer

from mirror.access import ClientKey, line_of
from mirror.errors import MirrorError, TemporaryError
from mirror.signing import digest_of_body, sign_answer
from mirror.store import StoreSpec
from mirror.store.served import ServedStore
from mirror.webclient import BrokeOff
from mirror.webclient.pace import LEAST, Pace, in_stretches

KEY = ClientKey("nightly", bytes(range(32)))
OBJECT = "packs/ab/" + "ab" * 32 + ".0"
DATA = os.urandom(3 << 20)
Reply = tuple[int, dict[str, object]]


def liar(speak: Callable[[Asked], Reply | None]) -> WebServer:
    """A server that signs what `speak` says: (status, JSON); None: it hangs up."""

    def say(asked: Asked) -> Say:
        if asked.method == "HEAD":  # whether somebody is there
            return Say(200)
        told = speak(asked)
        if told is None:
            return Say(hang_up=True)
        body = json.dumps(told[1]).encode()
        headers = {"content-length": str(len(body)), "content-digest": digest_of_body(body)}
        sign_answer(KEY, told[0], headers, asked.headers)
        return Say(told[0], body, {name: value for name, value in headers.items() if name != "content-length"})

    return WebServer(say)


@pytest.fixture
def key_file(tmp_path: Path) -> str:
    path = tmp_path / "key"
    path.write_text(line_of(KEY))
    path.chmod(0o600)
    return str(path)


def send(server: WebServer, key_file: str, data: bytes = DATA, patience: float = 1) -> bool:
    spec = StoreSpec(f"{server.url}/www", key_file=key_file)
    return ServedStore(spec, patience_seconds=patience).create(OBJECT, data)


def partly(have: object) -> Reply:
    return 202, {"result": "partly there", "have": have}


def refused(have: object) -> Reply:
    return 409, {"status": 409, "kind": "offset", "detail": "no", "have": have}


def told(have: object) -> Reply:
    return 200, {"result": "partly there", "have": have}


def in_turn(asked: Asked, first: Iterator[object]) -> Reply | None:
    if "/-/part" not in asked.path:
        return None
    have = next(first)
    return told(have) if asked.method == "GET" else partly(have)


LIARS: dict[str, tuple[Callable[[Asked], Reply | None], str]] = {
    "takes nothing": (lambda asked: told(0) if asked.method == "GET" else partly(0), "the server has 0, and that gets no more"),
    "refuses all": (lambda asked: told(0) if asked.method == "GET" else refused(0), "the server has 0, and that gets no more"),
    "never makes it": (
        lambda asked: told(len(DATA)) if asked.method == "GET" else partly(len(DATA)),
        "the server has 3,145,728, and that gets no more",
    ),
    "always altered": (
        lambda asked: told(0) if asked.method == "GET" else (400, {"kind": "altered", "detail": "not what it was"}),
        "the server has 0, and that gets no more",
    ),
}


@pytest.mark.parametrize("lie", LIARS)
def test_a_server_that_takes_nothing_is_not_asked_for_ever(lie: str, key_file: str) -> None:
    speak, words = LIARS[lie]
    with liar(lambda asked: speak(asked) if "/-/part" in asked.path else None) as server:
        began = time.monotonic()
        with pytest.raises(TemporaryError, match=words):
            send(server, key_file)
        assert time.monotonic() - began < 20
        assert len(server.asked) < 60


def test_a_server_that_loses_what_it_had_is_told(key_file: str) -> None:
    haves = iter([0] + [100, 200, 50] * 100)
    with liar(lambda asked: in_turn(asked, haves)) as server, pytest.raises(TemporaryError, match="gets no more"):
        send(server, key_file)
    haves = iter([1000, 0, 2000, 0, *range(3000, 10**6, 1000)])  # twice is borne

    def speak(asked: Asked) -> Reply | None:
        if asked.method == "PUT" and "at=20000" in asked.path:
            return 201, {"result": "imported"}
        return in_turn(asked, haves)

    with liar(speak) as server:
        assert send(server, key_file)


@pytest.mark.parametrize("have", [-1, len(DATA) + 1, "5", None, True, 1.5, [], 10**30])
def test_an_answer_that_is_none_is_told(have: object, key_file: str) -> None:
    with liar(lambda asked: told(have) if asked.method == "GET" else None) as server:
        with pytest.raises(MirrorError, match="the answer is none that this program knows") as found:
            send(server, key_file)
        assert not isinstance(found.value, TemporaryError)


def test_a_server_that_hangs_up_on_every_body_is_given_up(key_file: str) -> None:
    with liar(lambda asked: told(0) if asked.method == "GET" else None) as server, pytest.raises(TemporaryError, match="broke off"):
        send(server, key_file)


@pytest.mark.parametrize(("status", "made"), [(201, True), (412, False)])
def test_a_lost_answer_is_resolved_by_a_question(status: int, made: bool, key_file: str) -> None:
    """What was sent in a piece has come, and nobody said so: it is not sent again."""
    with liar(lambda asked: (200, {"result": "already there", "have": 1}) if asked.method == "GET" else None) as server:
        assert send(server, key_file) is False
        assert [asked.method for asked in server.asked if asked.method != "HEAD"] == ["PUT", "GET"]
    with liar(lambda asked: told(0) if asked.method == "GET" else (status, {}) if "/-/" in asked.path else None) as server:
        assert send(server, key_file) is made


def test_a_full_disk_is_told_at_once(key_file: str) -> None:
    with liar(lambda asked: (507, {"kind": "disk-full", "detail": "no room"})) as server:
        with pytest.raises(TemporaryError, match="no room") as found:
            send(server, key_file)
        assert found.value.kind == "disk-full"
        assert len(server.asked) <= 2


def test_a_pace_is_halved_by_what_breaks_and_grows_with_what_passes() -> None:
    pace, size = Pace(), 30 << 20
    assert pace.next(size) == size
    found = []
    for _ in range(9):
        pace.broke(pace.next(size))
        found.append(pace.next(size))
    assert found[0] == size // 2
    assert found[-1] == LEAST
    for _ in range(7):
        pace.passed(LEAST)
        pace.passed(100)  # what is less says nothing
    assert pace.next(size) == LEAST
    pace.passed(LEAST)
    assert pace.next(size) == 2 * LEAST
    pace.broke(1 << 20)  # somebody else's request, begun before
    assert pace.next(size) == 2 * LEAST
    for _ in range(8 * 12):
        pace.passed(pace.next(size))
    assert pace.next(size) == size


def test_a_pace_is_shared_by_threads() -> None:
    pace = Pace()

    def run() -> None:
        for _ in range(2000):
            pace.broke(pace.next(1 << 25))
            pace.passed(pace.next(1 << 25))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert LEAST <= pace.next(1 << 25) <= 2 * LEAST


@pytest.mark.parametrize("carries", [LEAST, 700_000, 3_000_000, 1 << 30])
def test_what_has_come_is_not_asked_for_again(carries: int) -> None:
    pace, asked, got = Pace(), [], []

    def ask(start: int, end: int, resend: bool) -> bytes:
        asked.append(end - start)
        if end - start > carries:
            raise BrokeOff("cannot read")
        got.append((start, end))
        return DATA[start:end]

    assert in_stretches(pace, 5, len(DATA), ask) == DATA[5:]
    assert sum(end - start for start, end in got) == len(DATA) - 5
    assert len([each for each in asked if each > carries]) <= 5


def test_what_never_comes_is_asked_for_once_with_patience() -> None:
    asked = []

    def ask(start: int, end: int, resend: bool) -> bytes:
        asked.append((end - start, resend))
        raise BrokeOff("cannot read") if not resend else TemporaryError("cannot read")

    with pytest.raises(TemporaryError) as found:
        in_stretches(Pace(), 0, 1 << 20, ask)
    assert type(found.value) is TemporaryError
    assert asked == [(1 << 20, False), (1 << 19, False), (LEAST, False), (LEAST, True)]
