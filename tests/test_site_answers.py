"""What HTTP says of a file: conditions, ranges and headers, from values to values; and from a URL to a path."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from mirror.manifest import File
from mirror.serve.answers import Answer, Served, answer, moved_to, served
from mirror.serve.paths import path_of, url_of

WHEN = 1_700_000_000
TAG = '"' + "01" * 16 + '"'
OTHER = '"' + "02" * 16 + '"'
EARLIER, THEN, LATER = (formatdate(WHEN + more, usegmt=True) for more in (-1, 0, 1))


def what(size: int = 1000, mtime: int | None = WHEN * 10**9 + 5) -> Served:
    return Served(size, b"\x01" * 16, mtime, "text/html", (("cache-control", "max-age=60"),))


def headers(found: Answer) -> dict[str, str]:
    return dict(found.headers)


def test_a_whole_file() -> None:
    found = answer(what(), {})
    assert (found.status, found.start, found.end) == (200, 0, 1000)
    assert headers(found) == {
        "etag": TAG,
        "last-modified": THEN,
        "accept-ranges": "bytes",
        "content-type": "text/html",
        "cache-control": "max-age=60",
        "content-length": "1000",
    }


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"if-none-match": TAG}, 304),
        ({"if-none-match": f"W/{TAG}"}, 304),
        ({"if-none-match": f'{OTHER}, "x",W/{TAG}'}, 304),
        ({"if-none-match": "*"}, 304),
        ({"if-none-match": OTHER}, 200),
        ({"if-none-match": TAG.strip('"')}, 200),
        ({"if-none-match": ""}, 200),
        ({"if-modified-since": THEN}, 304),
        ({"if-modified-since": LATER}, 304),
        ({"if-modified-since": EARLIER}, 200),
        ({"if-modified-since": "yesterday"}, 200),
        ({"if-modified-since": "Mon, 99 Foo 99999999999 00:00:00 GMT"}, 200),
        ({"if-none-match": OTHER, "if-modified-since": LATER}, 200),  # the tag counts, the time does not
        ({"if-none-match": TAG, "if-modified-since": EARLIER}, 304),
        ({"if-match": TAG}, 200),
        ({"if-match": "*"}, 200),
        ({"if-match": OTHER}, 412),
        ({"if-match": f"W/{TAG}"}, 412),
        ({"if-unmodified-since": THEN}, 200),
        ({"if-unmodified-since": EARLIER}, 412),
        ({"if-match": TAG, "if-unmodified-since": EARLIER}, 200),
        ({"if-match": TAG, "if-none-match": TAG}, 304),
        ({"if-none-match": TAG, "range": "bytes=0-1"}, 304),
    ],
)
def test_conditions(asked: dict[str, str], status: int) -> None:
    for method in ("GET", "HEAD"):
        assert answer(what(), asked, method).status == status, method
    found = answer(what(), asked)
    if status == 304:
        assert headers(found) == {"etag": TAG, "last-modified": THEN, "cache-control": "max-age=60"}
    assert (found.start, found.end) == ((0, 1000) if status == 200 else (0, 0))


@pytest.mark.parametrize(
    ("asked", "stretch"),
    [
        ("bytes=0-0", (0, 1)),
        ("bytes=0-499", (0, 500)),
        ("bytes=500-", (500, 1000)),
        ("bytes=999-", (999, 1000)),
        ("bytes=-1", (999, 1000)),
        ("bytes=-1000", (0, 1000)),
        ("bytes=-5000", (0, 1000)),
        ("bytes=10-5000", (10, 1000)),
        ("bytes=0000000000000000000000000000010-11", (10, 12)),
        ("bytes=10-" + "9" * 400, (10, 1000)),
        ("Bytes=1-2", (1, 3)),
        ("bytes= 1-2 ", (1, 3)),
        ("bytes=1000-", None),
        ("bytes=1000-2000", None),
        ("bytes=" + "9" * 400 + "-", None),
        ("bytes=-0", None),
    ],
)
def test_a_range(asked: str, stretch: tuple[int, int] | None) -> None:
    found = answer(what(), {"range": asked})
    if stretch is None:
        assert (found.status, headers(found)["content-range"], found.start, found.end) == (416, "bytes */1000", 0, 0)
        return
    start, end = stretch
    assert (found.status, found.start, found.end) == (206, start, end)
    assert headers(found)["content-range"] == f"bytes {start}-{end - 1}/1000"
    assert headers(found)["content-length"] == str(end - start)
    assert headers(found)["etag"] == TAG
    assert answer(what(), {"range": asked}, "HEAD").status == 200  # a range is of a GET


@pytest.mark.parametrize(
    "asked", ["", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=5-3", "bytes=0-1,3-4", "items=0-1", "bytes=1 -2"]
)
def test_what_is_no_range_or_several_gives_all(asked: str) -> None:
    found = answer(what(), {"range": asked})
    assert (found.status, found.start, found.end) == (200, 0, 1000)


@pytest.mark.parametrize(
    ("condition", "status"), [(TAG, 206), (OTHER, 200), (f"W/{TAG}", 200), (THEN, 206), (EARLIER, 200), (LATER, 200), ("x", 200)]
)
def test_a_range_of_a_certain_version(condition: str, status: int) -> None:
    assert answer(what(), {"range": "bytes=1-2", "if-range": condition}).status == status


def test_an_empty_file_has_no_ranges() -> None:
    for asked in ("bytes=0-", "bytes=-1", "bytes=0-0"):
        found = answer(what(0), {"range": asked})
        assert (found.status, found.start, found.end, headers(found)["content-length"]) == (200, 0, 0, "0")


@pytest.mark.parametrize("mtime", [None, -1, -(10**18), 10**30])
def test_a_time_that_http_cannot_say_is_not_said(mtime: int | None) -> None:
    found = answer(what(mtime=mtime), {"if-modified-since": THEN, "if-unmodified-since": THEN})
    assert found.status == 200
    assert "last-modified" not in headers(found)


def test_no_file_is_newer_than_now() -> None:
    found = answer(what(mtime=(int(time.time()) + 10**6) * 10**9), {})
    assert headers(found)["last-modified"] in {formatdate(time.time() - ago, usegmt=True) for ago in range(3)}


def test_what_a_file_was_published_with() -> None:
    published = (
        ("cache-control", "no-cache"),
        ("content-encoding", "gzip"),
        ("x-amz-storage-class", "STANDARD"),
        ("set-cookie", "a=b"),
    )
    file = File(b"a.css", 3, b"\x01" * 16, 0, b"", mtime=5, media_type="text/x-own", headers=published)
    assert served(file) == Served(3, b"\x01" * 16, 5, "text/x-own", published[:2])
    assert served(File(b"a.CSS", 0, bytes(16), 0, b"")).media_type == "text/css"
    assert served(File(b"a", 0, bytes(16), 0, b"")).media_type == "application/octet-stream"


@pytest.mark.parametrize("value", ["a\r\nset-cookie: b=c", "\u00e9", "a\x00b", " a", "a ", ""])
def test_what_a_manifest_says_of_headers_is_not_trusted(value: str) -> None:
    file = File(b"a.css", 0, bytes(16), 0, b"", media_type=value, headers=(("cache-control", value), ("Content-Language", value)))
    assert served(file) == Served(0, bytes(16), None, "text/css")
    assert moved_to(File(b"a", 0, bytes(16), 0, b"", headers=(("x-amz-website-redirect-location", value),))) == ""


def test_a_file_may_send_people_elsewhere() -> None:
    assert moved_to(File(b"a", 0, bytes(16), 0, b"", headers=(("x-amz-website-redirect-location", "/new.html"),))) == "/new.html"


@pytest.mark.parametrize(
    ("target", "path"),
    [
        (b"/", b""),
        (b"/a/b.html", b"a/b.html"),
        (b"/a/", b"a/"),
        (b"/a%20b+c", b"a b+c"),
        (b"/caf%E9", b"caf\xe9"),
        (b"/caf%C3%A9", b"caf\xc3\xa9"),
        (b"/%252e%252e", b"%2e%2e"),
        (b"/100%", b"100%"),
        (b"/%zz", b"%zz"),
        (b"/a%2Fb", b"a/b"),
        (b"//a///b//", b"a/b/"),
        (b"/%2F%2Fevil.example/", b"evil.example/"),
        (b"/..a/...", b"..a/..."),
        (b"/a\\..\\b", b"a\\..\\b"),
        (b"/.mirrored", b".mirrored"),
        (b"/a/.mirror/x", b"a/.mirror/x"),
        (b"http://www.example.org/a", b"a"),
        (b"http://www.example.org", b""),
        (b"/..", None),
        (b"/../etc/passwd", None),
        (b"/a/../b", None),
        (b"/a/./b", None),
        (b"/%2e%2e/x", None),
        (b"/.%2e/x", None),
        (b"/a/%2e%2E", None),
        (b"/..%2f..%2fetc/passwd", None),
        (b"/a%00b", None),
        (b"/.mirror", None),
        (b"/.mirror/", None),
        (b"/.mirror/mirror.json", None),
        (b"/%2emirror/mirror.json", None),
        (b"//.mirror//mirror.json", None),
        (b"/" + b"a" * 65_537, None),
        (b"*", None),
        (b"", None),
        (b"a", None),
    ],
)
def test_a_url_names_a_path(target: bytes, path: bytes | None) -> None:
    assert path_of(target) == path


def test_every_path_has_a_url_that_names_it() -> None:
    every = bytes(range(1, 256)).replace(b"/", b"")
    assert path_of(url_of(b"a/" + every).encode()) == b"a/" + every
