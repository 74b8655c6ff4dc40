"""A store behind a web server, against servers that do what web servers do: pages for missing objects, no ranges, wrong ranges,
packed bodies, refusals, redirects, and an end in the middle. What is right is known from the dictionary that is served."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from webservers import Asked, Say, WebServer

from mirror.errors import AuthError, DamageError, MirrorError, NoListing, NotFound, TemporaryError, UsageError
from mirror.keys import MIRROR_KEY
from mirror.log import numbers
from mirror.store import StoreSpec
from mirror.store.web import WebStore
from mirror.webclient.client import WebClient

BODY = bytes(range(256)) * 40
OBJECTS = {MIRROR_KEY: b"{}", "packs/aa/pack.0": BODY, "packs/bb/other.0": BODY[::-1], "empty": b""}
PAGE = Say(200, b" \n<!DOCTYPE html><title>Welcome</title>", {"Content-Type": "text/html; charset=utf-8"})
KEY = "packs/aa/pack.0"
Twist = Callable[[Asked, Say], Say]


def plain(objects: Mapping[str, bytes] = OBJECTS) -> Callable[[Asked], Say]:
    """A server that does all of it right, Range as well."""

    def speak(asked: Asked) -> Say:
        data = objects.get(asked.path.removeprefix("/base/"))
        if data is None:
            return Say(404, b"<html>not found</html>", {"Content-Type": "text/html"})
        if span := asked.headers.get("range"):
            first, _, last = span.removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last) + 1 if last else len(data), len(data))
            if start >= len(data):
                return Say(416, b"", {"Content-Range": f"bytes */{len(data)}"})
            return Say(206, data[start:end], {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"})
        return Say(200, data, {"Content-Type": "application/octet-stream"})

    return speak


def twisted(twist: Twist, objects: Mapping[str, bytes] = OBJECTS) -> WebServer:
    right = plain(objects)
    return WebServer(lambda asked: twist(asked, right(asked)))


def store_at(server: WebServer, patience: float = 3) -> WebStore:
    return WebStore(StoreSpec(f"{server.url}/base"), patience_seconds=patience)


def no_ranges(asked: Asked, say: Say) -> Say:
    if "range" not in asked.headers or say.status not in (206, 416):
        return say
    return Say(200, OBJECTS[asked.path.removeprefix("/base/")], {"Content-Type": "application/octet-stream"})


def others(asked: Asked, say: Say) -> Say:
    """A range that nobody asked for."""
    return Say(206, say.body, {"Content-Range": "bytes 0-9/100"}) if say.status == 206 else say


def headless_part(asked: Asked, say: Say) -> Say:
    return Say(206, say.body) if say.status == 206 else say


def short_part(asked: Asked, say: Say) -> Say:
    return Say(206, say.body[:-1], say.headers) if say.status == 206 else say


def packed_part(asked: Asked, say: Say) -> Say:
    packed = {"Content-Encoding": "gzip"}
    return Say(say.status, gzip.compress(say.body), say.headers | packed) if say.status in (200, 206) else say


def refused_part(asked: Asked, say: Say) -> Say:
    return Say(416) if say.status == 206 else say


def odd_length(asked: Asked, say: Say) -> Say:
    """A digit to Python, none to HTTP."""
    return Say(200, b"", {"Content-Length": "\u00b2"}, -1) if asked.method == "HEAD" and say.status == 200 else say


def no_head(asked: Asked, say: Say) -> Say:
    return Say(405) if asked.method == "HEAD" else say


def no_head_no_ranges(asked: Asked, say: Say) -> Say:
    return no_head(asked, no_ranges(asked, say))


def lengthless(asked: Asked, say: Say) -> Say:
    return Say(say.status, say.body, say.headers, length=-1)


def page_for_missing(asked: Asked, say: Say) -> Say:
    return PAGE if say.status == 404 else say


def all_html(asked: Asked, say: Say) -> Say:
    """A server whose every file is text/html, for want of a better type, and every missing one a page."""
    return PAGE if say.status == 404 else Say(say.status, say.body, say.headers | {"Content-Type": "text/html"})


def refuses_missing(asked: Asked, say: Say) -> Say:
    return Say(403, b"<Error><Code>AccessDenied</Code></Error>") if say.status == 404 else say


TWISTS: list[Twist] = [
    lambda asked, say: say, no_ranges, others, headless_part, short_part, packed_part, refused_part, no_head, no_head_no_ranges,
    odd_length, lengthless, page_for_missing, all_html, refuses_missing,
]  # fmt: skip


@pytest.mark.parametrize("twist", TWISTS, ids=lambda twist: twist.__name__)
def test_what_is_there_is_read_and_what_is_not_is_not_there(twist: Twist) -> None:
    with twisted(twist) as server:
        store = store_at(server)
        assert store.url == f"{server.url}/base"
        for key, data in OBJECTS.items():
            assert store.get(key, len(data)) == data
            assert store.size(key) == len(data)
        assert store.get_ranges(KEY, [(5, 10), (0, 0), (300, 700), (10_000, 10_240)]) == [
            BODY[5:10], b"", BODY[300:700], BODY[10_000:],
        ]  # fmt: skip
        for ask in (lambda: store.get("none", 10), lambda: store.get_ranges("none", [(0, 5)])):
            with pytest.raises(NotFound):
                ask()
        assert store.size("none") is None
        with pytest.raises(DamageError, match="shorter than the 10241 bytes"):
            store.get_ranges(KEY, [(10_000, 10_241)])
        with pytest.raises(DamageError, match="shorter"):
            store.get_ranges(KEY, [(20_000, 20_001)])
        with pytest.raises(DamageError, match="more than the 100 it may have"):
            store.get(KEY, 100)


def test_a_fresh_store_takes_a_refusal_for_absence_if_anything_may_be_read() -> None:
    for ask in (lambda store: store.get("none", 9), lambda store: store.get_ranges("none", [(0, 5)])):
        with twisted(refuses_missing) as server, pytest.raises(NotFound):
            ask(store_at(server))
    with WebServer(lambda _: Say(403)) as server:
        for ask in (lambda store: store.get(MIRROR_KEY, 9), lambda store: store.size("a")):
            with pytest.raises(AuthError, match=f"{server.url}/base/"):
                ask(store_at(server))
    with WebServer(lambda _: Say(401)) as server, pytest.raises(AuthError):
        store_at(server).get(MIRROR_KEY, 9)


def test_without_ranges_a_pack_is_transferred_once_however_many_want_some_of_it() -> None:
    arrived = threading.Barrier(2, timeout=10)
    with twisted(no_ranges) as server:
        store = store_at(server)
        assert store.get_ranges(KEY, [(0, 1)]) == [BODY[:1]]
        asked = len(server.asked)
        for at in range(50):
            assert store.get_ranges(KEY, [(at, at + 7), (at + 100, at + 200)]) == [BODY[at : at + 7], BODY[at + 100 : at + 200]]
        assert len(server.asked) == asked

        def other(at: int) -> bytes:
            if at < 2:
                arrived.wait()
            return store.get_ranges("packs/bb/other.0", [(at, at + 9)])[0]

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(other, range(40))) == [BODY[::-1][at : at + 9] for at in range(40)]
        assert len(server.asked) == asked + 1


def test_whole_packs_in_memory_are_few() -> None:
    objects = {f"packs/{number}": bytes([number]) * (30 << 20) for number in range(4)}
    with twisted(
        lambda asked, say: Say(200, objects[asked.path.removeprefix("/base/")]) if say.status == 206 else say, objects
    ) as server:
        store = store_at(server)
        for key in [*objects, *objects]:
            store.get_ranges(key, [(0, 1)])
            assert sum(map(len, store._held.values())) <= 64 << 20
        assert len(server.asked) == 8  # gone from memory when they were wanted again
        store.get_ranges("packs/3", [(7, 9)])
        assert len(server.asked) == 8


def test_a_head_is_found_on_a_server_that_has_a_page_for_everything() -> None:
    objects = {f"log/{number:012d}.json": b"{}" for number in range(1, 12)}
    with twisted(page_for_missing, objects) as server:
        assert list(numbers(store_at(server))) == list(range(1, 12))
        assert len(server.asked) < 30


@pytest.mark.parametrize("cut", [0, 1, 5000])
def test_a_body_that_breaks_off_is_asked_for_again_and_then_told(cut: int) -> None:
    def once(asked: Asked, say: Say) -> Say:
        return Say(say.status, say.body, say.headers, cut=cut) if say.body and len(server.asked) == 1 else say

    def always(asked: Asked, say: Say) -> Say:
        return Say(say.status, say.body, say.headers, cut=min(cut, len(say.body) - 1)) if say.body else say

    with twisted(once) as server:
        assert store_at(server).get(KEY, len(BODY)) == BODY
    with twisted(always) as server:
        for ask in (lambda store: store.get(KEY, len(BODY)), lambda store: store.get_ranges(KEY, [(3, 9)])):
            with pytest.raises(TemporaryError, match=KEY):
                ask(store_at(server, patience=0.5))


def test_a_redirect_to_another_place_is_followed() -> None:
    with (
        twisted(lambda asked, say: say) as far,
        WebServer(lambda asked: Say(307, headers={"Location": far.url + asked.path})) as near,
    ):
        store = store_at(near)
        assert store.get(KEY, len(BODY)) == BODY
        assert store.get_ranges(KEY, [(5, 10)]) == [BODY[5:10]]
        assert store.size(KEY) == len(BODY)
        assert store.size("none") is None


def test_it_only_reads() -> None:
    with twisted(lambda asked, say: say) as server:
        store = store_at(server)
        with pytest.raises(NoListing):
            store.list("index/")
        calls: list[Callable[[], Any]] = [
            lambda: store.create("a", b""), lambda: store.put_hint("a", b""), lambda: store.delete(["a"]),
        ]  # fmt: skip
        for call in calls:
            with pytest.raises(UsageError, match="can only be read"):
                call()
        assert (store.sweep(), store.free_bytes(), server.asked) == (0, None, [])


def test_nothing_answers() -> None:
    with twisted(lambda asked, say: say) as server:
        store = store_at(server, patience=0.3)
        assert store.size(KEY) == len(BODY)
    errors: list[type[MirrorError]] = []
    for ask in (lambda: store.get(KEY, 9), lambda: store.get_ranges(KEY, [(0, 1)]), lambda: store.size(KEY)):
        with pytest.raises(MirrorError) as found:
            ask()
        errors.append(type(found.value))
    assert errors == [TemporaryError] * 3
    with WebClient(server.url) as client:
        assert client.where("") == server.url
