"""A mirror as people see it: `mirror serve --site` as a live process, asked over real HTTP.

What is right is said by the source folder. Pages, links, ranges, hostile requests, damage, newer snapshots, many visitors at once.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from email.utils import formatdate
from pathlib import Path

import pytest
from conftest import S3
from drive import cli
from hosted import FOLDER_ONLY, UPLOADS, Hosted, assert_urls_give_the_source, make_weblog
from mirrors import BEGINNING, mirror, noise, settle, target_in, write
from nginx import PAGE, Nginx
from servers import Visitor
from trees import clean
from visits import ROOT, Served, serving

from mirror.making import Making
from mirror.site import SiteSpec
from mirror.sync import SyncOptions, sync
from mirror.target import TargetSpec

BIG = noise(9_000_000, 4)  # class 1, more than 64 chunks: its list of chunks is an object of its own
SMALL = noise(400_000, 5)  # class 0, a few chunks


def make_pages(root: Path) -> Path:
    """A site as a web server knows it: index files, folders without one, links of all kinds, large and empty files."""
    write(root / "index.html", b"<h1>start</h1>")
    write(root / "404.html", b"<h1>the site's own page</h1>")
    write(root / "docs" / "index.html", b"<h1>docs</h1>")
    write(root / "docs" / "index.htm", b"not this one")
    write(root / "docs" / "deep" / "page.html", b"deep")
    write(root / "old" / "index.htm", b"<h1>old</h1>")
    write(root / "bare" / "file", b"bare")
    (root / "hollow").mkdir()
    write(root / "empty.txt", b"")
    write(root / "css" / "site.css", b"a{}")
    write(root / "big.bin", BIG)
    write(root / "small.bin", SMALL)
    write(root / ".well-known" / "security.txt", b"Contact")
    write(root / "before", b"before 1970", -(10**18))
    for name, goal in {
        "to-file": "docs/deep/page.html",
        "to-folder": "docs",
        "to-old": "old/",
        "docs/up": "../css/site.css",
        "docs/deep/upup": "../../to-folder",
        "inside": f"{root}/docs",
        "out": "../outside",
        "out-and-in": f"../{root.name}/index.html",
        "absolute": "/etc/passwd",
        "nowhere": "missing",
        "round": "and-round",
        "and-round": "round",
        "self": "self/x",
        "empty/index.html": "../css/site.css",
    }.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).symlink_to(goal)
    os.link(root / "docs" / "index.html", root / "hard")
    settle(root)
    return root


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="module")
def pages(folder: Path) -> Path:
    """The source."""
    return make_pages(folder / "site")


@pytest.fixture(scope="module")
def packed(folder: Path, pages: Path) -> TargetSpec:
    target = target_in(folder, "packed")
    mirror(pages, target)
    return target


@pytest.fixture(scope="module", params=["packed", "tree"])
def site(request: pytest.FixtureRequest, folder: Path, pages: Path, packed: TargetSpec) -> Iterator[Served]:
    """It, served from either layout."""
    target = packed
    if request.param == "tree":
        target = target_in(folder, "tree")
        clean(pages, target)
    with serving(target.store.url, MIRROR_CACHE_DIR=str(folder / "cache")) as served:
        yield served


# -- pages and links


@pytest.mark.parametrize(
    ("url", "body"),
    [
        ("/", b"<h1>start</h1>"),
        ("/index.html", b"<h1>start</h1>"),
        ("/?a=b", b"<h1>start</h1>"),
        ("/docs/", b"<h1>docs</h1>"),
        ("//docs///", b"<h1>docs</h1>"),
        ("/docs/deep/page.html", b"deep"),
        ("/old/", b"<h1>old</h1>"),
        ("/bare/file", b"bare"),
        ("/%62are%2Ffile", b"bare"),
        ("/empty.txt", b""),
        ("/hard", b"<h1>docs</h1>"),
        ("/.well-known/security.txt", b"Contact"),
        ("/to-file", b"deep"),
        ("/to-folder/", b"<h1>docs</h1>"),
        ("/to-folder/deep/page.html", b"deep"),
        ("/to-old/", b"<h1>old</h1>"),
        ("/docs/up", b"a{}"),
        ("/docs/deep/upup/up", b"a{}"),
        ("/inside/deep/page.html", b"deep"),
        ("/empty/", b"a{}"),
        ("/before", b"before 1970"),
    ],
)
def test_what_is_there(site: Served, url: str, body: bytes) -> None:
    got, head = site.get(url), site.get(url, "HEAD")
    assert (got.status, got.body) == (200, body)
    assert (head.status, head.body) == (200, b"")
    assert {**got.headers, "date": ""} == {**head.headers, "date": ""}
    assert got.headers["content-length"] == str(len(body))


@pytest.mark.parametrize(
    ("url", "where"),
    [
        ("/docs", "/docs/"),
        ("/docs?x=1&y=%20", "/docs/?x=1&y=%20"),
        ("/docs/deep", "/docs/deep/"),
        ("/bare", "/bare/"),
        ("/hollow", "/hollow/"),
        ("/to-folder", "/to-folder/"),
        ("//docs", "/docs/"),
        ("/d%6Fcs", "/docs/"),
    ],
)
def test_a_folder_has_a_slash_at_its_end(site: Served, url: str, where: str) -> None:
    for method in ("GET", "HEAD"):
        got = site.get(url, method)
        assert (got.status, got.headers["location"]) == (301, where)


@pytest.mark.parametrize(
    "url",
    [
        "/missing", "/docs/missing", "/bare/", "/hollow/", "/empty.txt/", "/index.html/", "/index.html/x", "/css/site.css/",
        "/out", "/out/", "/out-and-in", "/absolute", "/nowhere", "/round", "/and-round", "/self", "/to-file/x", "/INDEX.HTML",
        "/docs/../index.html", "/..", "/../site/index.html", "/%2e%2e/site/index.html", "/docs/%2e%2e/%2e%2e/site/index.html",
        "/..%2fsite/index.html", "/docs/..%2f..%2f..%2fetc/passwd", "/./index.html", "/index.html%00", "/%00", "/\\..\\index.html",
        "/docs\\deep", "/..\\..\\etc\\passwd", "/" + "a" * 5000, "/" + "a/" * 3000, "/" + "%2e%2e%2f" * 500, "/%c0%ae%c0%ae/x",
        "/.mirror", "/.mirror/", "/.mirror/mirror.json", "/.mirror/log/000000000001.json", "/%2emirror/mirror.json",
        "//.mirror/mirror.json", "/docs/../.mirror/mirror.json", "/mirror.json", "/log/000000000001.json", "/latest.json",
    ],
)  # fmt: skip
def test_what_is_not_there(site: Served, url: str) -> None:
    """Also what is beside the site, or the store of its mirror, however it is spelt."""
    got = site.get(url)
    assert (got.status, got.body) == (404, b"<h1>the site's own page</h1>")
    assert got.headers["content-type"] == "text/html"
    assert "etag" not in got.headers
    assert "last-modified" not in got.headers
    assert site.get(url, "HEAD").headers["content-length"] == str(len(got.body))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PROPFIND", "TRACE", "MKCOL"])
def test_nothing_but_reading_is_understood(site: Served, method: str) -> None:
    for url in ("/index.html", "/missing", "/.mirror/x"):
        got = site.get(url, method)
        assert (got.status, got.headers["allow"]) == (405, "GET, HEAD")


def test_types_and_validators(site: Served, pages: Path) -> None:
    types = {
        "/": "text/html",
        "/css/site.css": "text/css",
        "/big.bin": "application/octet-stream",
        "/hard": "application/octet-stream",
    }
    for url, media_type in types.items():
        got = site.get(url, "HEAD")
        assert (got.headers["content-type"], got.headers["accept-ranges"]) == (media_type, "bytes")
        assert got.headers["last-modified"] == formatdate(BEGINNING // 10**9, usegmt=True)
    etags = {site.get(url).headers["etag"] for url in ("/docs/", "/docs/index.html", "/hard", "/to-folder/")}
    assert len(etags) == 1
    assert "last-modified" not in site.get("/before").headers
    assert "server" not in site.get("/").headers


def test_conditions(site: Served) -> None:
    first = site.get("/")
    etag, modified = first.headers["etag"], first.headers["last-modified"]
    for asked in ({"If-None-Match": etag}, {"If-None-Match": f'"x", W/{etag}'}, {"If-Modified-Since": modified}):
        got = site.get("/", **asked)
        assert (got.status, got.body, got.headers["etag"]) == (304, b"", etag)
    assert site.get("/", If_None_Match='"x"').status == 200
    assert site.get("/", If_Match='"x"').status == 412
    with Visitor(site.port) as visitor:  # nothing of a body spoils the connection
        for _ in range(3):
            assert visitor.ask("/", If_None_Match=etag).status == 304
            assert visitor.ask("/", "HEAD").status == 200
            assert visitor.ask("/").body == first.body


@pytest.mark.parametrize(("url", "data"), [("/big.bin", BIG), ("/small.bin", SMALL)])
def test_ranges(site: Served, url: str, data: bytes) -> None:
    size = len(data)
    stretches = [
        (0, 1),
        (0, size),
        (1, 2),
        (size - 1, size),
        (100_000, 100_001),
        (65_535, 300_000),
        (size // 2, size),
        (7, 399_999),
    ]
    for start, end in stretches:
        got = site.get(url, Range=f"bytes={start}-{end - 1}")
        assert (got.status, got.headers["content-range"]) == (206, f"bytes {start}-{end - 1}/{size}")
        assert got.body == data[start:end]
    assert site.get(url, Range="bytes=-70000").body == data[-70_000:]
    assert site.get(url, Range=f"bytes={size - 5}-").body == data[-5:]
    assert site.get(url, Range=f"bytes={size}-").status == 416
    several = site.get(url, Range="bytes=0-1,5-6")
    assert (several.status, several.body) == (200, data)
    etag = several.headers["etag"]
    assert site.get(url, Range="bytes=0-1", If_Range=etag).status == 206
    assert site.get(url, Range="bytes=0-1", If_Range='"x"').body == data


def test_a_download_that_broke_off_goes_on(site: Served) -> None:
    """As download tools do it: part by part, each with the ETag of the first."""
    have, etag = b"", ""
    while len(have) < len(BIG):
        got = site.get("/big.bin", Range=f"bytes={len(have)}-{len(have) + 1_234_567}", **({"If_Range": etag} if etag else {}))
        assert got.status == 206
        have, etag = have + got.body, got.headers["etag"]
    assert have == BIG


def test_whatever_a_stranger_sends_the_next_one_is_served(site: Served) -> None:
    """Raw bytes that are no request, and requests that nobody should send."""
    for said in (
        b"GET\r\n\r\n", b"\x00" * 100, b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nRange: bytes=" + b"0-0," * 9000 + b"\r\n\r\n", b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999\r\n\r\nabc", b"GET * HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://x/../etc/passwd HTTP/1.1\r\nHost: a\r\n\r\n", b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"HEAD / HTTP/1.0\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ):  # fmt: skip
        with socket.create_connection(("127.0.0.1", site.port), timeout=30) as stranger:
            answer = b""
            with suppress(ConnectionError):  # it may hang up before it has heard all of this
                stranger.sendall(said)
                stranger.shutdown(socket.SHUT_WR)
                while more := stranger.recv(65_536):
                    answer += more
        assert not answer or answer[:9] in (b"HTTP/1.1 ", b"HTTP/1.0 "), answer[:200]
        assert not answer.startswith(b"HTTP/1.1 5"), (said[:80], answer[:200])
    assert site.get("/").status == 200


# -- whole sites


def make_names(root: Path, *, folder_only: bool) -> Path:
    """All names that mean something to a URL, a shell or a server, and a file of many chunks."""
    for number, name in enumerate(UPLOADS):
        write(root / "uploads" / name, name.encode() + noise(number * 50, number), BEGINNING + number)
    for name in FOLDER_ONLY if folder_only else ():
        write(Path(os.fsdecode(os.path.join(bytes(root), name))), name)
    write(root / "empty.txt", b"")
    write(root / "film.bin", BIG)
    settle(root)
    return root


@pytest.mark.parametrize("layout", ["packed", pytest.param("tree", marks=pytest.mark.long)])
def test_every_file_of_a_weblog_by_its_url(tmp_path: Path, layout: str) -> None:
    source, target = make_weblog(tmp_path / "site"), target_in(tmp_path)
    mirror(source, target, making=Making(layout, "www"))
    with serving(target.store.url) as site:
        assert assert_urls_give_the_source(Hosted(target, site.port), source) > 170
    assert site.summary["failures"] == 0


def test_every_file_of_a_tree_by_its_url(tmp_path: Path) -> None:
    source, target = make_names(tmp_path / "site", folder_only=True), target_in(tmp_path)
    clean(source, target)
    with serving(target.store.url) as site:
        assert assert_urls_give_the_source(Hosted(target, site.port), source) == len(UPLOADS) + len(FOLDER_ONLY) + 2
    assert site.summary["failures"] == 0


@pytest.mark.parametrize("layout", ["packed", "tree"])
def test_every_file_by_its_url_out_of_a_bucket(tmp_path: Path, s3: S3, layout: str) -> None:
    """SeaweedFS, on a host that has never seen the mirror."""
    source = make_names(tmp_path / "site", folder_only=False)
    target = TargetSpec(s3.spec(layout), tmp_path / "cache")
    report = sync(SiteSpec(str(source)), target, SyncOptions(making=Making(layout, "www"), workers=0))
    assert report.problems == []
    cache = str(tmp_path / "another host")
    with serving(target.store.url, "--endpoint-url", s3.endpoint_url, "--region", s3.region, MIRROR_CACHE_DIR=cache) as site:
        assert assert_urls_give_the_source(Hosted(target, site.port, links=False), source) == len(UPLOADS) + 2
        assert site.get("/film.bin", Range="bytes=6000000-7000000").body == BIG[6_000_000:7_000_001]
        assert site.get("/uploads", "HEAD").headers["location"] == "/uploads/"
    assert site.summary["failures"] == 0


def test_a_site_without_a_page_for_404_and_without_folders(tmp_path: Path) -> None:
    write(tmp_path / "site" / "a", b"a")
    target = target_in(tmp_path)
    mirror(tmp_path / "site", target)
    with serving(target.store.url) as site:
        for url in ("/", "/b", "/a/"):
            got = site.get(url)
            assert (got.status, b"404 Not Found" in got.body) == (404, True)
        assert site.get("/a").body == b"a"


# -- snapshots


def test_an_older_snapshot_of_a_tree(tmp_path: Path) -> None:
    """What it had is in packs, in live files that were moved, and in live files that stayed."""
    source, target = tmp_path / "site", target_in(tmp_path, "tree")
    for number in range(12):
        write(source / f"{number}.html", f"page {number} ".encode() * 200)
    write(source / "big.bin", BIG)
    settle(source)
    first = clean(source, target).snapshot
    old = {path.name: path.read_bytes() for path in source.iterdir()}
    (source / "big.bin").rename(source / "moved.bin")
    (source / "0.html").rename(source / "zero.html")
    for number in range(1, 4):
        write(source / f"{number}.html", b"another page", BEGINNING + 10**9)
    (source / "4.html").unlink()
    settle(source)
    second = clean(source, target).snapshot
    new = {path.name: path.read_bytes() for path in source.iterdir()}
    for at, files in ((first, old), (second, new)):
        with serving(target.store.url, "--at", at) as site:
            for name in sorted(old.keys() | new.keys()):
                got = site.get(f"/{name}")
                assert (got.status, got.body) == ((200, files[name]) if name in files else (404, got.body)), (at, name)
            name = "big.bin" if at == first else "moved.bin"
            assert site.get(f"/{name}", Range="bytes=5000000-5000009").body == BIG[5_000_000:5_000_010]
        assert site.summary["snapshot"] == at


@pytest.mark.parametrize("layout", ["packed", "tree"])
def test_the_newest_snapshot_is_served_and_a_chosen_one_stays(tmp_path: Path, layout: str) -> None:
    source, target = tmp_path / "site", target_in(tmp_path)
    write(source / "index.html", b"first")
    write(source / "gone.html", b"gone")
    take = {"making": Making(layout, "www")}
    number = mirror(source, target, **take).snapshot
    with serving(target.store.url) as newest, serving(target.store.url, "--at", number) as first:
        assert newest.get("/").body == first.get("/").body == b"first"
        write(source / "index.html", b"second", BEGINNING + 10**9)
        (source / "gone.html").unlink()
        for name in ("new.html", "more.html", "yet more.html"):
            write(source / name, b"new")
        mirror(source, target, **take)
        give_up = time.monotonic() + 30
        while newest.get("/").body != b"second":
            assert time.monotonic() < give_up
            time.sleep(0.1)
        assert [newest.get(url).status for url in ("/gone.html", "/new.html")] == [404, 200]
        assert [first.get(url).status for url in ("/gone.html", "/new.html")] == [200, 404]
        assert first.get("/").body == b"first"
        (told,) = newest.wait_for("notice", "serving")
        assert "snapshot" in told["text"]
    assert newest.summary["snapshot"] > first.summary["snapshot"] == number


def test_visitors_see_whole_files_while_a_tree_is_published(tmp_path: Path) -> None:
    """Ten releases go by; each answer is one release's file, whole, or says that it is not there. Nobody gets a failure."""
    source, target = tmp_path / "site", target_in(tmp_path, "tree")

    def release(number: int) -> None:
        for name in ("index.html", "a.html", "b.css"):
            write(source / name, f"release {number} of {name}".encode() * 3000, BEGINNING + number * 10**9)
        write(source / "big.bin", noise(1_500_000, number), BEGINNING + number * 10**9)
        settle(source)
        clean(source, target)

    release(0)
    digests = {hashlib.sha256(noise(1_500_000, number)).hexdigest() for number in range(10)}
    wrong: list[object] = []
    done = threading.Event()
    seen: set[bytes] = set()

    def visit(port: int) -> None:
        with Visitor(port) as visitor:
            while not done.is_set():
                for name in ("index.html", "a.html", "b.css", "big.bin"):
                    got = visitor.ask(f"/{name}")
                    if got.status != 200:
                        wrong.append((name, got.status, got.body[-300:]))
                    elif name == "big.bin":
                        if hashlib.sha256(got.body).hexdigest() not in digests:
                            wrong.append((name, len(got.body)))
                    elif got.body != got.body[: len(got.body) // 3000] * 3000:
                        wrong.append((name, got.body[:40]))
                    else:
                        seen.add(got.body[:12])

    with serving(target.store.url) as site:
        visitors = [threading.Thread(target=visit, args=(site.port,)) for _ in range(3)]
        for each in visitors:
            each.start()
        try:
            for number in range(1, 10):
                release(number)
            give_up = time.monotonic() + 30
            while len(seen) < 2 and time.monotonic() < give_up:
                time.sleep(0.05)
        finally:
            done.set()
            for each in visitors:
                each.join()
    assert wrong == []
    assert len(seen) > 1


# -- damage


def spoil(target: TargetSpec, at: float) -> Path:
    """Change a byte in the largest pack; at: how far in it."""
    pack = max((Path(target.store.url) / "packs").rglob("*.0"), key=lambda path: path.stat().st_size)
    data = bytearray(pack.read_bytes())
    data[int(len(data) * at)] ^= 1
    pack.chmod(0o600)
    pack.write_bytes(data)
    return pack


def test_damage_is_never_sent(tmp_path: Path) -> None:
    """In the middle of a file the connection ends before it; at its beginning there is a page that says what to do."""
    source, target = tmp_path / "site", target_in(tmp_path)
    write(source / "big.bin", BIG)
    write(source / "index.html", b"fine")
    mirror(source, target)
    spoil(target, 0.5)
    with serving(target.store.url) as site:
        connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=60)
        connection.request("GET", "/big.bin")
        answer = connection.getresponse()
        assert answer.status == 200
        with pytest.raises(http.client.IncompleteRead) as broken:
            answer.read()
        assert 0 < len(broken.value.partial) < len(BIG)
        assert broken.value.partial == BIG[: len(broken.value.partial)]
        connection.close()
        good = len(broken.value.partial)
        assert site.get("/big.bin", Range=f"bytes=0-{good - 1}").body == BIG[:good]
        for _ in range(3):
            failed = site.get("/big.bin", Range=f"bytes={good + (1 << 19)}-")
            assert failed.status == 500
            assert b"mirror verify" in failed.body
            assert str(tmp_path).encode() not in failed.body  # strangers need not know where it is
        assert site.get("/big.bin", Range="bytes=-1000").body == BIG[-1000:]
        assert site.get("/").body == b"fine"
        told = site.wait_for("notice", "damage")
        assert "big.bin" in told[0]["text"]
        assert "mirror verify" in told[0]["text"]
        assert len(told) == 1  # once, not at every visit
    assert site.summary["failures"] == 4
    assert [each["whole"] for each in site.told("answered")].count(False) == 1


def test_a_damaged_fragment_or_segment_costs_what_it_lists(tmp_path: Path) -> None:
    source, target = tmp_path / "site", target_in(tmp_path)
    write(source / "first.html", b"first")
    mirror(source, target)
    write(source / "second.html", b"second")
    mirror(source, target)
    fragments = sorted((Path(target.store.url) / "index").iterdir(), key=lambda path: path.stat().st_mtime_ns)
    fragments[0].chmod(0o600)
    fragments[0].write_bytes(fragments[0].read_bytes()[:-1] + b"x")
    with serving(target.store.url) as site:
        assert site.get("/first.html").status == 500
        assert site.get("/second.html").body == b"second"
        assert any(fragments[0].name in each["text"] for each in site.told("notice", "damage"))
    for segment in (Path(target.store.url) / "manifests").rglob("*.0"):
        segment.unlink()
    with serving(target.store.url) as site:
        assert site.get("/first.html").status == 500
        assert site.get("/").status == 500


def test_a_store_that_goes_away_is_a_failure_that_ends(tmp_path: Path) -> None:
    source, target = tmp_path / "site", target_in(tmp_path)
    write(source / "index.html", b"fine")
    write(source / "other.html", b"other")
    mirror(source, target)
    store = Path(target.store.url)
    with serving(target.store.url) as site:
        site.get("/")
        time.sleep(3.1)  # it looks for a newer snapshot again
        store.rename(tmp_path / "unmounted")
        assert site.get("/").status == 200  # from memory
        (tmp_path / "unmounted").rename(store)
        assert site.get("/other.html").body == b"other"


# -- many at once


def test_fifty_visitors_at_once_in_bounded_memory(tmp_path: Path) -> None:
    """Fifty at once, each of whom gets all files; large ones that together exceed what is held in memory many times over."""
    source, target = tmp_path / "site", target_in(tmp_path)
    for number in range(6):
        write(source / f"film-{number}.bin", noise(6_000_000, number))
    for number in range(10):
        write(source / f"page-{number}.html", noise(3000, 100 + number))
    mirror(source, target)
    files = {path.name: hashlib.sha256(path.read_bytes()).digest() for path in source.iterdir()}
    most = 0

    def visit(number: int) -> list[str]:
        wrong = []
        names = sorted(files)
        with Visitor(site.port) as visitor:
            for name in names[number:] + names[:number]:
                if not name.startswith("film") or name == f"film-{number % 6}.bin":
                    got = visitor.ask(f"/{name}")
                    if got.status != 200 or hashlib.sha256(got.body).digest() != files[name]:
                        wrong.append(name)
        return wrong

    with serving(target.store.url, "--memory", "8M") as site:
        before = site.memory
        with ThreadPoolExecutor(50) as visitors:
            visits = [visitors.submit(visit, number) for number in range(50)]
            while not all(each.done() for each in visits):
                most = max(most, site.memory)
                time.sleep(0.02)
        assert [each.result() for each in visits] == [[]] * 50
    assert site.summary["answers"] == 50 * 11
    assert most - before < 130 << 20, (before >> 20, most >> 20)


def test_slow_visitors_hold_little_and_nobody_up(tmp_path: Path) -> None:
    """A hundred who ask for a film and do not read on, and as many who leave in the middle."""
    source, target = tmp_path / "site", target_in(tmp_path)
    for number in range(4):
        write(source / f"film-{number}.bin", noise(24_000_000, number))
    write(source / "index.html", b"fine")
    mirror(source, target)
    with serving(target.store.url, "--memory", "16M") as site:
        site.get("/")
        before = site.memory
        lazy = []
        for number in range(100):
            visitor = socket.create_connection(("127.0.0.1", site.port), timeout=30)
            visitor.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            visitor.sendall(f"GET /film-{number % 4}.bin HTTP/1.1\r\nHost: a\r\n\r\n".encode())
            lazy.append(visitor)
        for visitor in lazy:
            assert visitor.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200"
        began = time.monotonic()
        assert site.get("/").body == b"fine"
        assert time.monotonic() - began < 20
        assert site.memory - before < 160 << 20, (before >> 20, site.memory >> 20)
        for visitor in lazy:
            visitor.close()
        assert site.get("/").body == b"fine"
        left = [each for each in site.wait_for("answered", count=102) if each["url"].startswith("/film")]
        assert all(each["bytes"] < 24_000_000 for each in left)  # nobody reads a film to its end for who has left


def test_strangers_who_say_nothing_keep_nobody_out(packed: TargetSpec) -> None:
    """Three times as many as are let in, who begin a request and never end it."""
    with serving(packed.store.url, files=256) as site, ExitStack() as stack:
        strangers = []
        for number in range(400):
            strangers.append(stack.enter_context(socket.create_connection(("127.0.0.1", site.port), timeout=30)))
            strangers[-1].sendall(b"GET / HTTP/1.1\r\nHost: ")
            if not number % 40:
                assert site.get("/docs/").body == b"<h1>docs</h1>"
        assert site.get("/docs/").body == b"<h1>docs</h1>"
        gone, give_up = 0, time.monotonic() + 15  # sooner than they would be sent away for their silence
        while gone <= 250 and time.monotonic() < give_up:
            gone = sum(_is_closed(stranger) for stranger in strangers)
        assert 250 < gone < 400, gone


def _is_closed(stranger: socket.socket) -> bool:
    stranger.setblocking(False)
    try:
        return stranger.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


@pytest.mark.long
def test_who_is_too_slow_is_sent_away(tmp_path: Path) -> None:
    """Who never ends a request after 20 s, who does not take what is sent after two minutes."""
    write(tmp_path / "site" / "film.bin", noise(30_000_000))
    target = target_in(tmp_path)
    mirror(tmp_path / "site", target)
    with serving(target.store.url) as site:
        began = time.monotonic()
        with ExitStack() as stack:
            mute, lazy = (stack.enter_context(socket.create_connection(("127.0.0.1", site.port), timeout=200)) for _ in range(2))
            lazy.sendall(b"GET /film.bin HTTP/1.1\r\nHost: a\r\n\r\n")
            mute.sendall(b"GET /film.bin HT")
            with suppress(ConnectionError):
                assert mute.recv(100) == b""
            assert 15 < time.monotonic() - began < 60
            (left,) = site.wait_for("answered", seconds=200)
            assert 100 < time.monotonic() - began < 180
            assert (left["whole"], left["bytes"] < 30_000_000) == (False, True)
            with suppress(ConnectionError):
                while lazy.recv(1 << 20):
                    pass


# -- the command


@pytest.mark.parametrize(("number", "loading"), [(signal.SIGINT, False), (signal.SIGTERM, True), (signal.SIGHUP, False)])
def test_a_signal_ends_it_well(packed: TargetSpec, number: signal.Signals, loading: bool) -> None:
    """Also while somebody has begun a download and does not read on."""
    with serving(packed.store.url) as site:
        idle, busy = (socket.create_connection(("127.0.0.1", site.port), timeout=30) for _ in range(2))
        with idle, busy:
            if loading:
                busy.sendall(b"GET /big.bin HTTP/1.1\r\nHost: a\r\n\r\n")
                assert busy.recv(12, socket.MSG_WAITALL) == b"HTTP/1.1 200"
            assert site.get("/").status == 200
            began = time.monotonic()
            assert site.stop(number) == 130
            assert time.monotonic() - began < 15
            assert idle.recv(1) == b""
    assert site.summary["interrupted"] is True
    assert (site.summary["answers"], site.summary["exit_code"]) == (1 + loading, 130)
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", site.port), timeout=5)


def test_it_says_where_it_is_and_what_it_answered(packed: TargetSpec, tmp_path: Path) -> None:
    log = tmp_path / "log"
    with serving(packed.store.url, "--log-file", log) as site:
        site.get("/docs?a=b")
        site.get("/missing\\x")
    assert f"http://127.0.0.1:{site.port}/" in site.error
    assert [(each["url"], each["status"], each["whole"]) for each in site.told("answered")] == [
        ("/docs", 301, True),
        ("/missing\\x", 404, True),
    ]
    lines = log.read_text()
    assert "GET /docs 301" in lines
    assert "exit 130" in lines


def test_it_changes_nothing(packed: TargetSpec, folder: Path, tmp_path: Path) -> None:
    before = {path: path.lstat().st_mtime_ns for path in Path(packed.store.url).rglob("*")}
    with serving(packed.store.url, TMPDIR=str(tmp_path)) as site:
        site.get("/")
    assert {path: path.lstat().st_mtime_ns for path in Path(packed.store.url).rglob("*")} == before
    assert list(tmp_path.iterdir()) == []


def test_without_right_to_write_anywhere_and_without_home(packed: TargetSpec) -> None:
    with serving(packed.store.url, HOME="", XDG_CACHE_HOME="") as site:
        assert site.get("/docs/").body == b"<h1>docs</h1>"


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        ((), 2, "cannot serve T: it is not said what for; say --site to serve a mirror to people"),
        (("--site", "--listen", "8080"), 2, "cannot use --listen '8080': it is no address"),
        (("--site", "--listen", "127.0.0.1:65536"), 2, "cannot use --listen"),
        (("--site", "--listen", "::1:80"), 2, "cannot use --listen"),
        (("--site", "--listen", "192.0.2.1:8080"), 2, "cannot listen on 192.0.2.1:8080: "),
        (("--site", "--listen", "no.such.host.invalid:8080"), 2, "cannot listen on no.such.host.invalid:8080: "),
        (("--site", "--listen", "a..b:0"), 2, "cannot listen on a..b:0: that is no name of a host; name another address"),
        (("--site", "--memory", "1M"), 2, "cannot use --memory '1M': it is less than 8M"),
        (("--site", "--at", "7", "--listen", "127.0.0.1:0"), 2, "cannot use the snapshot of T: there is no snapshot 7"),
        (
            ("--site", "--at", "tag:x", "--listen", "127.0.0.1:0"),
            2,
            "cannot use the snapshot of T: no live snapshot has the tag 'x'",
        ),
    ],
)
def test_what_cannot_be_served_is_said(packed: TargetSpec, words: tuple[str, ...], code: int, error: str) -> None:
    done = cli("serve", packed.store.url, *words)
    assert done.code == code
    assert done.error.startswith(error.replace("T", packed.store.url, 1) if " T:" in error else error), done.error


def test_a_target_that_is_not_there(tmp_path: Path) -> None:
    done = cli("serve", tmp_path / "nothing", "--site", "--listen", "127.0.0.1:0")
    assert (done.code, "there is no mirror.json" in done.error) == (3, True)
    assert cli("init", tmp_path / "empty", "--layout", "packed").code == 0
    done = cli("serve", tmp_path / "empty", "--site", "--listen", "127.0.0.1:0")
    assert (done.code, "there is no snapshot in" in done.error) == (3, True)


def test_an_address_that_is_taken(packed: TargetSpec) -> None:
    with serving(packed.store.url) as site:
        done = cli("serve", packed.store.url, "--site", "--listen", f"127.0.0.1:{site.port}")
        assert done.code == 2
        assert done.error.startswith(f"cannot listen on 127.0.0.1:{site.port}: address already in use; name another address")


def test_without_the_extra_it_says_how_to_get_it(packed: TargetSpec) -> None:
    code = "import sys; sys.modules['uvicorn'] = None; from mirror.cli import main; sys.exit(main(sys.argv[1:]))"
    words = ["serve", packed.store.url, "--site"]
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert done.returncode == 2
    assert (
        done.stderr == "mirror: cannot serve: uvicorn is not installed; install the extra: pip install 'mirror-snapshot[serve]'\n"
    )


def test_by_name_and_by_variables(packed: TargetSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mirror.toml").write_text(f"[mirrors.www]\ntarget = '{packed.store.url}'\nmemory = '32M'\nsite = 'www'\n")
    with serving("www", "--config", tmp_path / "mirror.toml") as site:
        assert site.get("/docs/").status == 200
    done = cli("serve", "www", "--config", tmp_path / "mirror.toml")  # there `site` is the name of one
    assert (done.code, "say --site" in done.error) == (2, True)
    for value, error in (("www", "say --site"), ("no", "say --site"), ("yes", "cannot use MIRROR_LISTEN '80'")):
        monkeypatch.setenv("MIRROR_SITE", value)
        monkeypatch.setenv("MIRROR_LISTEN", "80")
        assert error in cli("serve", packed.store.url).error


def test_from_python(packed: TargetSpec) -> None:
    """In a thread that is not the main one there are no signals: the process decides."""
    code = (
        "import mirror, sys, os, signal\n"
        "def hear(stamped):\n"
        "    if getattr(stamped.event, 'kind', '') == 'listening':\n"
        "        print(stamped.event.text); os.kill(os.getpid(), signal.SIGINT)\n"
        "report = mirror.serve(sys.argv[1], site=True, at='1', listen='127.0.0.1:0', memory='16M', listeners=[hear])\n"
        "print(report.exit_code, report.snapshot, report.answers)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, packed.store.url], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout.splitlines()[1:] == ["130 1 0"], done.stderr
    assert "is served at http://127.0.0.1:" in done.stdout


def proxy_block() -> str:
    """The block of docs/hosting.md for nginx before a served mirror."""
    (block,) = re.findall(r"^```nginx\n(location / \{.*?)```$", PAGE.read_text("utf-8"), flags=re.S | re.M)
    assert block.count("proxy_pass http://127.0.0.1:8080;") == 1
    return str(block)


def test_behind_nginx(packed: TargetSpec, tmp_path: Path, nginx: Callable[..., Nginx]) -> None:
    """With the block of the page: pages, conditions and ranges come through, programs do not."""
    source, target = tmp_path / "site", target_in(tmp_path, "php")
    for name in ("index.html", "config.php", ".htpasswd", "a.phps"):
        write(source / name, b"text of " + name.encode())
    mirror(source, target)
    for spec, checks in ((packed, False), (target, True)):
        with serving(spec.store.url) as site:
            block = proxy_block().replace("127.0.0.1:8080", f"127.0.0.1:{site.port}")
            before = nginx(tmp_path, f"server {{ listen 80; root /srv/www;\n{block}}}")
            if checks:
                answers = {name: before.get(f"/{name}").status for name in ("", "config.php", ".htpasswd", "a.phps", "x/.htaccess")}
                assert answers == {"": 200, "config.php": 404, ".htpasswd": 404, "a.phps": 200, "x/.htaccess": 404}
                continue
            first = before.get("/docs/")
            assert (first.status, first.body) == (200, b"<h1>docs</h1>")
            assert before.get("/docs/", If_None_Match=first.headers["etag"]).status == 304
            assert before.get("/big.bin", Range="bytes=5000000-5000009").body == BIG[5_000_000:5_000_010]
            assert before.get("/big.bin").body == BIG
            assert before.get("/docs").headers["location"].endswith("/docs/")
            assert before.get("/missing").body == b"<h1>the site's own page</h1>"


def test_other_peoples_tools(packed: TargetSpec, tmp_path: Path) -> None:
    """rclone downloads what is there, with its time."""
    with serving(packed.store.url) as site:
        url = f"http://127.0.0.1:{site.port}"
        copy = [shutil.which("rclone") or "rclone", "--config", "", "copyurl", f"{url}/big.bin", str(tmp_path / "big.bin")]
        subprocess.run(copy, check=True, capture_output=True, timeout=60)
        assert (tmp_path / "big.bin").read_bytes() == BIG
        at = int((tmp_path / "big.bin").stat().st_mtime)
        assert at == BEGINNING // 10**9


def test_json_is_one_object_a_line(packed: TargetSpec) -> None:
    with serving(packed.store.url) as site:
        site.get("/")
    assert [each["event"] for each in site.events] == ["started", "notice", "answered", "summary"]
