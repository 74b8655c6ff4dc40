"""Header routes: how files are published, from the flag to the entry and to the object, and that a change of routes alone is a
change of descriptions alone."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import S3
from drive import cli, same, truth
from mirrors import BEGINNING, settle, target_in, write

import mirror as api
from mirror.contents import ls
from mirror.errors import UsageError
from mirror.making import Making
from mirror.manifest import File
from mirror.scan import Remembered, memory_of
from mirror.site import SiteSpec
from mirror.site.files import FolderSite
from mirror.site.routes import NOTHING, Routes
from mirror.spelling import Route, route
from mirror.store import StoreSpec
from mirror.survey import LookOptions
from mirror.sync import SyncOptions, SyncReport, sync
from mirror.target import TargetSpec

CACHED = "*.css: Cache-Control: max-age=31536000"
REST = "*: Cache-Control: no-cache"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    root = tmp_path / "site"
    for path in ("index.html", "a.css", "css/b.css", "css/deep/c.css", "js/app.js.gz", "data", "Ä.css"):
        write(root / path, path.encode())
    os.link(root / "a.css", root / "css" / "again.css")
    settle(root)
    return root


def files(target: TargetSpec) -> dict[str, File]:
    return {os.fsdecode(entry.path): entry for entry in ls(target) if isinstance(entry, File)}


def night(site: Path, target: TargetSpec, *routes: str, **options: Any) -> SyncReport:
    look = LookOptions(routes=Routes(map(route, routes)), **options)
    return sync(SiteSpec(str(site)), target, SyncOptions(making=Making("packed"), workers=0, look=look))


@contextmanager
def unread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No file of a folder may be opened meanwhile."""

    def opened(self: FolderSite, path: bytes) -> Any:
        raise AssertionError(f"{path!r} was read")

    with monkeypatch.context() as patched:
        patched.setattr(FolderSite, "open", opened)
        yield


# -- what a route is


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (CACHED, Route("*.css", "cache-control", "max-age=31536000")),
        ("*.css:cache-control:no-cache", Route("*.css", "cache-control", "no-cache")),
        ("a:b/*.css: CACHE-CONTROL : x: y", Route("a:b/*.css", "cache-control", "x: y")),
        ("/old.html: x-amz-website-redirect-location: https://example.org/a: b",
         Route("/old.html", "x-amz-website-redirect-location", "https://example.org/a: b")),
        ("*.gz: Content-Encoding: gzip", Route("*.gz", "content-encoding", "gzip")),
        ("*.htm: Content-Type: text/html; charset=utf-8", Route("*.htm", "content-type", "text/html; charset=utf-8")),
        ("d/: Content-Disposition: attachment; name=\"a\"", Route("d/", "content-disposition", 'attachment; name="a"')),
        ("*: x-amz-storage-class: STANDARD_IA", Route("*", "x-amz-storage-class", "STANDARD_IA")),
        ("de/: Content-Language: de, en", Route("de/", "content-language", "de, en")),
    ],
)  # fmt: skip
def test_a_route_is_read(text: str, wanted: Route) -> None:
    assert route(text) == wanted


WRONG = [
    ("", "it is no route such as"),
    ("Cache-Control: x", "it is no route such as"),
    ("*.css Cache-Control x", "it is no route such as"),
    ("*.css: Cache-Contrl: x", "the header Cache-Contrl cannot be set (did you mean cache-control?)"),
    ("*.css: Set-Cookie: x", "the header Set-Cookie cannot be set, but cache-control, "),
    ("*.css: x-amz-acl: public-read", "the header x-amz-acl cannot be set"),
    (": Cache-Control: x", "its pattern matches nothing"),
    ("# note: Cache-Control: x", "its pattern matches nothing"),
    ("!*.css: Cache-Control: x", "its pattern matches nothing"),
    ("*.css: Cache-Control:", "the value of Cache-Control is empty"),
    ("*.css: Cache-Control: né", "the value of Cache-Control is not printable ASCII"),
    ("*.css: Cache-Control: a\nX-Evil: b", "the value of Cache-Control is not printable ASCII"),
    ("*.css: Cache-Control: " + "x" * 2049, "the value of Cache-Control has more than 2,048 characters"),
    ("*.css: Content-Type: text", "'text' is no value of Content-Type, such as text/html"),
    ("*.css: x-amz-storage-class: cold", "'cold' is no value of x-amz-storage-class, such as STANDARD_IA"),
    ("a: x-amz-website-redirect-location: b.html", "'b.html' is no value of x-amz-website-redirect-location, such as /new.html"),
]


@pytest.mark.parametrize(("text", "why"), WRONG)
def test_what_is_no_route(text: str, why: str) -> None:
    with pytest.raises(ValueError, match="^" + re.escape(why)):
        route(text)


def test_the_first_that_matches_decides_for_each_header() -> None:
    routes = Routes(
        map(route, ("/css/b.css: Cache-Control: no-store", CACHED, "css/: Content-Language: de", "*: Content-Language: en", REST,
                    "*.css: Content-Type: text/x-css"))
    )  # fmt: skip
    assert routes.of(b"css/b.css") == ("text/x-css", (("cache-control", "no-store"), ("content-language", "de")))
    assert routes.of(b"css/deep/c.css") == ("text/x-css", (("cache-control", "max-age=31536000"), ("content-language", "de")))
    assert routes.of(b"index.html") == ("", (("cache-control", "no-cache"), ("content-language", "en")))
    assert routes.of(b"not-utf8-\xe9.css")[1][0] == ("cache-control", "max-age=31536000")
    assert Routes().of(b"a.css") == NOTHING
    assert Routes(map(route, [CACHED])).of(b"A.CSS") == NOTHING, "case counts, as in filters"


def test_what_was_remembered_without_routes_is_what_it_was_before_there_were_any() -> None:
    entries, seen = [File(b"a", 0, bytes(16), 0, b"")], [(1, 1)]
    plain = memory_of(entries, seen)
    assert plain == memory_of(entries, seen, Routes())
    routed = memory_of(entries, seen, Routes(map(route, [CACHED])))
    stale = {
        (memory is routed, routes): Remembered.read(
            memory, 1, lambda: list(entries), None if routes is None else Routes(map(route, routes))
        ).stale
        for memory in (plain, routed)
        for routes in (None, (), (CACHED,), (REST,))
    }
    assert {key for key, is_stale in stale.items() if is_stale} == {
        (False, (CACHED,)), (False, (REST,)), (True, ()), (True, (REST,)),
    }  # fmt: skip


def test_a_digest_tells_routes_apart() -> None:
    assert Routes().digest == b""
    several = [[CACHED], [REST], [CACHED, REST], [REST, CACHED], ["*.css: Cache-Control: x"], ["*.css: Content-Language: x"]]
    digests = {Routes(map(route, texts)).digest for texts in several}
    assert len(digests) == len(several)
    assert all(len(digest) == 16 for digest in digests)


# -- what it does to a snapshot


def test_entries_say_how_they_are_published(site: Path, tmp_path: Path) -> None:
    target = target_in(tmp_path)
    report = night(site, target, CACHED, "*.gz: Content-Encoding: gzip", "*.gz: Content-Type: text/javascript")
    assert report.problems == []
    there = files(target)
    assert {path for path, entry in there.items() if entry.headers == (("cache-control", "max-age=31536000"),)} == {
        "a.css", "css/b.css", "css/deep/c.css", "css/again.css", "Ä.css",
    }  # fmt: skip
    assert (there["js/app.js.gz"].media_type, there["js/app.js.gz"].headers) == ("text/javascript", (("content-encoding", "gzip"),))
    assert (there["data"].media_type, there["data"].headers) == ("", ())
    assert there["css/again.css"].link == b"a.css"


def test_a_change_of_routes_alone_describes_and_reads_nothing(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    time.sleep(2.1)  # what was written less than 2 s before it is read is read once more in any case
    target = target_in(tmp_path)
    night(site, target)
    before = files(target)
    with unread(monkeypatch):
        report = night(site, target, CACHED)
    assert (report.described, report.changed, report.added, report.deleted, report.bytes_read) == (5, 0, 0, 0, 0)
    after = files(target)
    assert {path: entry.chunks for path, entry in before.items()} == {path: entry.chunks for path, entry in after.items()}
    with unread(monkeypatch):
        assert night(site, target, CACHED).snapshot == 0, "the same routes again change nothing"
        report = night(site, target, "*.css: Cache-Control: no-cache", "index.html: Content-Language: en")
        assert (report.described, report.changed) == (6, 0)
        report = night(site, target)
        assert (report.described, report.changed) == (6, 0), "without routes there are no headers"
        assert {entry.headers for entry in files(target).values()} == {()}
        assert night(site, target).snapshot == 0


def test_routes_that_change_nothing_are_remembered(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every entry is looked at closely once; the night after is as quick as ever: no segment is decoded."""
    import mirror.scan

    target = target_in(tmp_path)
    time.sleep(2.1)  # what was written less than 2 s before it is read is read once more in any case
    night(site, target)
    closely: list[bytes] = []
    looked = mirror.scan.Comparison._closely

    def noting(self: Any, here: Any, parent: Any) -> Any:
        closely.append(here.path)
        return looked(self, here, parent)

    monkeypatch.setattr(mirror.scan.Comparison, "_closely", noting)
    assert night(site, target).snapshot == 0
    assert closely == []
    assert night(site, target, "*.nothing: Cache-Control: x").snapshot == 0
    assert len(closely) == len(truth(site))
    closely.clear()
    assert night(site, target, "*.nothing: Cache-Control: x").snapshot == 0
    assert closely == []


def test_a_manifest_that_comes_back_is_not_believed(site: Path, tmp_path: Path) -> None:
    """Another host syncs with other routes and back: what this one remembers of the first manifest was seen with those."""
    here, there = target_in(tmp_path), TargetSpec(target_in(tmp_path).store, tmp_path / "other-cache")
    night(site, here, CACHED)
    night(site, there)
    assert night(site, here, REST).described == 8
    night(site, there, CACHED)
    assert night(site, here, REST).described == 8
    assert {entry.headers for entry in files(here).values()} == {(("cache-control", "no-cache"),)}


def test_a_file_that_changes_has_its_headers(site: Path, tmp_path: Path) -> None:
    target = target_in(tmp_path)
    night(site, target, CACHED)
    write(site / "a.css", b"other", BEGINNING + 5)
    write(site / "new.css", b"new")
    settle(site)
    report = night(site, target, CACHED)
    assert (report.changed, report.added) == (2, 1)
    assert {files(target)[path].headers for path in ("a.css", "new.css")} == {(("cache-control", "max-age=31536000"),)}
    assert night(site, target, CACHED, checksum=True).snapshot == 0, "read again, and still the same"
    report = night(site, target, REST, checksum=True)
    assert (report.described, report.changed) == (9, 0), "read again, and described anew"


def test_a_folder_tree_keeps_them_in_the_manifest(site: Path, tmp_path: Path) -> None:
    target = tmp_path / "tree"
    assert cli("sync", site, target, "--layout", "tree", "--header", CACHED).code == 0
    before = {path.name: path.stat().st_ino for path in target.rglob("*.css")}
    done = cli("sync", site, target, "--header", REST, "-v")
    assert done.code == 0, done
    assert ". index.html" in done.err
    assert before == {path.name: path.stat().st_ino for path in target.rglob("*.css")}, "nothing was written again"
    assert cli("verify", target).code == 0
    assert cli("verify", target, "--against", site).code == 0
    assert cli("restore", target, tmp_path / "out").code == 0
    same(tmp_path / "out", site)


# -- from the outside


def test_flag_variable_file_and_api_say_the_same(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    both = [CACHED, "*: Content-Language: en"]
    write(tmp_path / "mirror.toml", "".join(
        f"[mirrors.{name}]\nsource = 'site'\ntarget = '{name}'\nlayout = 'packed'\n{key} = {json.dumps(both)}\n"
        for name, key in (("one", "headers"), ("other", "header"))
    ).encode())  # fmt: skip
    assert cli("sync", "one", "--new-target").code == 0
    assert cli("sync", "other", "--new-target").code == 0
    assert cli("sync", site, "flag", "--layout", "packed", "--header", both[0], "--header", both[1]).code == 0
    monkeypatch.setenv("MIRROR_HEADER", "\n".join(both))
    assert cli("sync", site, "variable", "--layout", "packed").code == 0
    monkeypatch.delenv("MIRROR_HEADER")
    api.sync(str(site), "api", layout="packed", header=both)
    listed = [cli("ls", place, "--json").out for place in ("one", "other", "flag", "variable", "api")]
    said = [
        [(line["path"], line["headers"]) for line in map(json.loads, text.splitlines()) if line.get("kind") == "file"]
        for text in listed
    ]
    assert len(said[0]) == 8
    assert said[0][0] == ("a.css", {"cache-control": "max-age=31536000", "content-language": "en"})
    assert all(one == said[0] for one in said)
    monkeypatch.setenv("MIRROR_HEADER", REST)
    assert cli("sync", "one").code == 0, "a variable counts more than the file"
    assert files(TargetSpec(StoreSpec("one")))["a.css"].headers == (("cache-control", "no-cache"),)


def test_what_is_wrong_is_told_with_its_place(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    bad = "*.css: Cache-Contrl: x"
    why = "the header Cache-Contrl cannot be set (did you mean cache-control?)"

    def error(*words: object) -> str:
        done = cli("sync", *words, "--layout", "packed")
        assert done.code == 2
        assert not (tmp_path / "target").exists()
        return done.error

    assert error(site, "target", "--header", CACHED, "--header", bad) == f"cannot use --header '{bad}': {why}"
    assert "its pattern '[z-a].css' matches nothing" in error(site, "target", "--header", "[z-a].css: Cache-Control: x")
    monkeypatch.setenv("MIRROR_HEADER", f"{CACHED}\n{bad}")
    assert error(site, "target") == f"cannot use MIRROR_HEADER line 2 '{bad}': {why}"
    monkeypatch.delenv("MIRROR_HEADER")
    text = f"[mirrors.docs]\nsource = 'site'\ntarget = 'target'\n\nheaders = ['{CACHED}', '{bad}']\n"
    write(tmp_path / "mirror.toml", text.encode())
    assert error("docs") == f"cannot use mirror.toml line 5: headers '{bad}': {why}"
    write(tmp_path / "mirror.toml", text.replace(f", '{bad}'", "").encode() + b"header = []\n")
    assert "mirror.toml line 6: 'header' is there twice" in error("docs")
    with pytest.raises(UsageError, match="--header"):
        api.sync(str(site), "target", layout="packed", header=[bad])


def test_diff_shows_what_a_sync_would_do(site: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    assert cli("sync", site, target, "--layout", "packed", "--header", CACHED).code == 0
    assert cli("diff", site, target, "--header", CACHED).out == ""
    shown = cli("diff", site, target, "--header", "index.html: Cache-Control: no-cache", "--header", CACHED).out
    assert shown == ". index.html\n"
    assert cli("sync", site, target, "--header", "index.html: Cache-Control: no-cache", "--header", CACHED, "-n").out == shown
    assert cli("sync", site, target, "--header", "index.html: Cache-Control: no-cache", "--header", CACHED).code == 0
    assert cli("diff", target, "1", "2").out == shown
    assert cli("verify", target, "--against", site).code == 0, "a folder has no headers: that is no difference"


def test_a_restore_into_a_bucket_sets_them(site: Path, tmp_path: Path, s3: S3) -> None:
    target = tmp_path / "target"
    routes = [CACHED, "*.gz: Content-Encoding: gzip", "*.gz: Content-Type: text/javascript", "data: Content-Language: de"]
    words = [word for text in routes for word in ("--header", text)]
    assert cli("sync", site, target, "--layout", "packed", *words).code == 0
    done = cli("restore", target, s3.url("www"), "--endpoint-url", s3.endpoint_url)
    assert done.code == 0, done

    def head(path: str) -> dict[str, Any]:
        answer: dict[str, Any] = s3.client.head_object(Bucket=s3.bucket, Key=f"{s3.prefix}/www/{path}")
        return answer

    style, script, data = head("css/b.css"), head("js/app.js.gz"), head("data")
    assert (style["CacheControl"], style["ContentType"]) == ("max-age=31536000", "text/css")
    assert (script["ContentEncoding"], script["ContentType"]) == ("gzip", "text/javascript")
    assert data["ContentLanguage"] == "de"
    assert "CacheControl" not in data
