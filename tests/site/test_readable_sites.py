"""What every readable site promises, on every kind: one suite.

The ground truth goes past the site: `Place.files` was planted with the operating system, boto3, zipfile or fsspec's own calls, and
`Place.look` asks those again.
"""

from __future__ import annotations

import os
import uuid
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, quote, unquote, urlsplit

import pytest
from servers import Answer, s3_error, scripted_http

from mirror.errors import AuthError, NotFound, SourceError, TemporaryError, UsageError
from mirror.site import FILE, FOLDER, SYMLINK, Excluded, Filter, Found, Seen, Site, SiteSpec, Unread
from mirror.site.open import open_site

# Siblings on both sides of `/`, depth, UTF-8, an empty file, one that comes in several pieces.
FILES = {
    "a-b": b"minus",
    "a.b": b"dot",
    "a/b": b"slash",
    "a/b-c": b"deep minus",
    "a/d/e/f.html": b"<p>",
    "a0": b"zero",
    "café/é.txt": "é".encode(),
    "empty": b"",
    "large": bytes(range(256)) * 20_000,
    "with space+plus%25": b"odd",
    "x/drop.log": b"log",
    "x/keep.txt": b"keep",
}


@dataclass(frozen=True)
class Place:
    """A site with FILES in it, and ways past it. missing: the spec of one that is not there; plant: puts one file more."""

    spec: SiteSpec
    look: Callable[[], dict[bytes, bytes]]
    plant: Callable[[str, bytes], None]
    missing: SiteSpec | None
    folders: bool

    def site(self, *rules: tuple[str, str]) -> Site:
        return open_site(replace(self.spec, filter=Filter(rules)))


@contextmanager
def folder_place(root: Path) -> Iterator[Place]:
    def plant(name: str, data: bytes) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)

    def look() -> dict[bytes, bytes]:
        return {os.fsencode(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}

    root.mkdir()
    yield Place(SiteSpec(str(root)), look, plant, SiteSpec(str(root / "none")), True)


@contextmanager
def s3_place(s3: Any) -> Iterator[Place]:
    start = f"{s3.prefix}/site/"

    def plant(name: str, data: bytes) -> None:
        s3.client.put_object(Bucket=s3.bucket, Key=start + name, Body=data)

    def look() -> dict[bytes, bytes]:
        return {key.encode(): s3.client.get_object(Bucket=s3.bucket, Key=start + key)["Body"].read() for key in s3.objects("site")}

    def spec(url: str) -> SiteSpec:
        return SiteSpec(url, endpoint_url=s3.endpoint_url, region=s3.region, static_credentials=True)

    yield Place(spec(s3.url("site")), look, plant, spec(f"s3://no-{uuid.uuid4().hex}/x"), False)


@contextmanager
def scripted_place(monkeypatch: pytest.MonkeyPatch, *, whole_keys: bool) -> Iterator[Place]:
    """An S3 server in memory that lists as S3 does, whole keys, or as SeaweedFS does, folder by folder; three keys a page."""
    objects: dict[str, bytes] = {}

    def order(key: str) -> object:
        return key.encode() if whole_keys else [part.encode() for part in key.split("/")]

    def reply(method: str, path: str, number: int) -> Answer:
        parts = urlsplit(path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
        if bucket != "bucket":
            return s3_error(404, "NoSuchBucket", "The specified bucket does not exist")
        if "list-type" in query:
            assert query["encoding-type"] == "url"
            keys = sorted((key for key in objects if key.startswith(query["prefix"])), key=order)
            return listing(keys, objects, int(query.get("continuation-token", 0)))
        if key not in objects:
            return s3_error(404, "NoSuchKey", "The specified key does not exist.")
        data = objects[key]
        headers = {"ETag": f'"{tag(data)}"', "Last-Modified": "Sun, 22 Nov 2026 01:48:41 GMT"}
        return Answer(200, data, headers)

    def plant(name: str, data: bytes) -> None:
        objects[f"site/{name}"] = data

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with scripted_http(reply) as address:

        def spec(url: str) -> SiteSpec:
            return SiteSpec(url, endpoint_url=f"http://{address}", region="us-east-1", static_credentials=True)

        yield Place(
            spec("s3://bucket/site"),
            lambda: {key.removeprefix("site/").encode(): data for key, data in objects.items()},
            plant,
            spec("s3://other/site"),
            False,
        )


def tag(data: bytes) -> str:
    return f"{hash(data) & 0xFFFFFFFF:x}"


def listing(keys: list[str], objects: dict[str, bytes], start: int, page: int = 3) -> Answer:
    more = start + page < len(keys)
    entries = "".join(
        f"<Contents><Key>{quote(key, safe='/').replace('%20', '+')}</Key><LastModified>2026-11-22T01:48:41.750Z</LastModified>"
        f"<ETag>&quot;{tag(objects[key])}&quot;</ETag><Size>{len(objects[key])}</Size></Contents>"
        for key in keys[start : start + page]
    )
    body = (
        '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<EncodingType>url</EncodingType><IsTruncated>{str(more).lower()}</IsTruncated>{entries}"
        + (f"<NextContinuationToken>{start + page}</NextContinuationToken>" if more else "")
        + "</ListBucketResult>"
    )
    return Answer(200, body.encode(), {"Content-Type": "application/xml"})


@contextmanager
def memory_place() -> Iterator[Place]:
    import fsspec

    root, files = f"/{uuid.uuid4().hex}", fsspec.filesystem("memory")

    def look() -> dict[bytes, bytes]:
        return {
            name.removeprefix(f"{root}/").encode(): data.getvalue() for name, data in files.store.items() if name.startswith(root)
        }

    files.mkdir(root)
    yield Place(SiteSpec(f"memory:/{root}"), look, lambda n, data: files.pipe(f"{root}/{n}", data), SiteSpec("memory://none"), True)
    files.rm(root, recursive=True)


@contextmanager
def zip_place(root: Path) -> Iterator[Place]:
    root.mkdir()
    path = root / "site.zip"

    def plant(name: str, data: bytes) -> None:
        with zipfile.ZipFile(path, "a") as file:
            file.writestr(name, data)

    def look() -> dict[bytes, bytes]:
        with zipfile.ZipFile(path) as file:
            return {name.encode(): file.read(name) for name in file.namelist()}

    yield Place(SiteSpec(f"zip://::file://{path}"), look, plant, SiteSpec(f"zip://::file://{root}/none.zip"), True)


@pytest.fixture(params=["folder", "s3", "s3-whole-keys", "s3-by-folder", "memory", "zip"])
def empty_place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    made = {
        "folder": lambda: folder_place(tmp_path / "site"),
        "s3": lambda: s3_place(request.getfixturevalue("s3")),
        "s3-whole-keys": lambda: scripted_place(monkeypatch, whole_keys=True),
        "s3-by-folder": lambda: scripted_place(monkeypatch, whole_keys=False),
        "memory": memory_place,
        "zip": lambda: zip_place(tmp_path / "zip"),
    }[request.param]()
    with made as place:
        yield place


@pytest.fixture
def place(empty_place: Place) -> Place:
    for name, data in FILES.items():
        empty_place.plant(name, data)
    return empty_place


def scan(site: Site) -> list[Seen]:
    """What a scan sees; asserts that the order is strictly ascending."""
    seen = list(site.scan())
    paths = [here.path for here in seen]
    assert paths == sorted(set(paths))
    return seen


def files(seen: list[Seen]) -> dict[bytes, Found]:
    return {here.path: here for here in seen if isinstance(here, Found) and here.kind == FILE}


def test_every_file_is_found_in_order_with_its_size(place: Place) -> None:
    truth = place.look()
    assert len(truth) == len(FILES)
    seen = scan(place.site())
    assert {path: found.size for path, found in files(seen).items()} == {path: len(data) for path, data in truth.items()}
    folders = [here.path for here in seen if isinstance(here, Found) and here.kind == FOLDER]
    wanted = [b"", b"a/", b"a/d/", b"a/d/e/", "café/".encode(), b"x/"]
    assert folders == (wanted if place.folders else [])
    assert all(isinstance(here, Found) for here in seen)


def test_every_file_reads_as_it_is(place: Place) -> None:
    site = place.site()
    for path, data in place.look().items():
        content = site.open(path)
        with content.stream:
            assert content.size == len(data)
            assert content.stream.read(content.size) == data
            assert content.stream.read(1) == b""
            assert site.recheck(path, content) == ""


def test_a_large_file_can_be_read_in_pieces(place: Place) -> None:
    pieces = []
    with place.site().open(b"large").stream as stream:
        while piece := stream.read(1_000_003):
            pieces.append(piece)
    assert b"".join(pieces) == FILES["large"]
    assert len(pieces) == 6


def test_what_a_scan_says_is_what_opening_says(place: Place) -> None:
    site = place.site()
    for path, found in files(scan(site)).items():
        content = site.open(path)
        content.stream.close()
        assert (content.size, content.mtime, content.validator) == (found.size, found.mtime, found.validator)


def test_validators_tell_a_change_and_nothing_else(place: Place) -> None:
    before = {path: found.validator for path, found in files(scan(place.site())).items()}
    assert {path: found.validator for path, found in files(scan(place.site())).items()} == before
    if not before[b"a-b"][0] or place.spec.url.startswith("zip"):  # (0, 0) is never trusted; a zip only grows
        return
    place.plant("a-b", b"MINUS")
    after = {path: found.validator for path, found in files(scan(place.site())).items()}
    assert {path for path in before if before[path] != after[path]} == {b"a-b"}


def test_what_comes_later_is_seen_by_the_next_scan(place: Place) -> None:
    before = set(files(scan(place.site())))
    place.plant("later", b"")
    assert set(files(scan(place.site()))) == before | {b"later"}


def test_what_is_not_there_is_not_found(place: Place) -> None:
    for path in (b"none", b"none/x", b"a/none"):
        with pytest.raises(NotFound):
            place.site().open(path)


def test_a_site_that_is_not_there_is_a_source_error(place: Place) -> None:
    assert place.missing
    for ask in (lambda site: site.check(), lambda site: list(site.scan())):
        with pytest.raises(SourceError) as caught:
            ask(open_site(place.missing))
        assert caught.value.hint
        assert caught.value.exit_code == 3
    place.site().check()


def test_an_excluded_folder_is_one_entry(place: Place) -> None:
    seen = scan(place.site(("exclude", "a/"), ("exclude", "*.log")))
    assert [here for here in seen if isinstance(here, Excluded)] == [Excluded(b"a/", "- a/"), Excluded(b"x/drop.log", "- *.log")]
    assert set(files(seen)) == {path for path in place.look() if not path.startswith(b"a/")} - {b"x/drop.log"}


def test_pages_only(place: Place) -> None:
    seen = scan(place.site(("include", "*.html"), ("exclude", "*")))
    assert set(files(seen)) == {b"a/d/e/f.html"}
    folders = [here.path for here in seen if isinstance(here, Found) and here.kind == FOLDER]
    assert folders == ([b"", b"a/", b"a/d/", b"a/d/e/"] if place.folders else [])
    excluded = {here.path for here in seen if isinstance(here, Excluded)}
    assert excluded == set(place.look()) - {b"a/d/e/f.html"}


def test_ignore_files_are_heeded_and_mirrored(place: Place) -> None:
    place.plant(".mirrorignore", b"*.log\n/a0\n")
    place.plant("x/.mirrorignore", b"!drop.log\nkeep.*\n")
    place.plant("a/more.log", b"")
    seen = scan(place.site())
    assert {here.path: here.rule for here in seen if isinstance(here, Excluded)} == {
        b"a/more.log": ".mirrorignore: *.log",
        b"a0": ".mirrorignore: /a0",
        b"x/keep.txt": "x/.mirrorignore: keep.*",
    }
    assert {b".mirrorignore", b"x/.mirrorignore", b"x/drop.log"} <= set(files(seen))


def test_an_empty_site_is_empty(empty_place: Place) -> None:
    if empty_place.spec.url.startswith("zip"):
        return  # an empty zip file is none
    assert [here.path for here in scan(empty_place.site())] == ([b""] if empty_place.folders else [])


def test_where_it_is_says_the_same_each_time(place: Place) -> None:
    assert place.site().identity == place.site().identity
    assert place.site().identity.get("path", place.site().identity.get("url")) == place.site().url
    assert "@" not in place.site().url


# ------------------------------------------------------------------------------------------------- what only S3 can have


@pytest.mark.parametrize("whole_keys", [True, False])
def test_keys_that_are_no_paths(monkeypatch: pytest.MonkeyPatch, whole_keys: bool) -> None:
    with scripted_place(monkeypatch, whole_keys=whole_keys) as place:
        for key in ("", "marker/", "marker/x", "full/", "a//b", "../up", "./here", "new\nline", "tab\t", "ok"):
            place.plant(key, b"data" if key and key != "marker/" else b"")
        site = place.site()
        seen = {here.path: here for here in scan(site)}
        kinds = {path: here.kind for path, here in seen.items() if not isinstance(here, Excluded)}
        assert kinds == {
            b"../up": "name",
            b"./here": "name",
            b"a//b": "name",
            b"full/": "name",
            b"marker/": FOLDER,
            b"marker/x": FILE,
            b"new\nline": FILE,
            b"ok": FILE,
            b"tab\t": FILE,
        }
        for path in (b"new\nline", b"tab\t", b"ok"):
            content = site.open(path)
            with content.stream:
                assert content.stream.read(10) == b"data"
            found = seen[path]
            assert isinstance(found, Found)
            assert (content.mtime, content.validator) == (found.mtime, found.validator)
        with pytest.raises(NotFound):
            site.open(b"no\nne")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (s3_error(403, "AccessDenied", "Access Denied"), AuthError),
        (s3_error(403, "InvalidAccessKeyId", "unknown"), AuthError),
        (s3_error(403, "SignatureDoesNotMatch", "no"), AuthError),
        (s3_error(404, "NoSuchBucket", "none"), SourceError),
        (s3_error(503, "SlowDown", "please"), TemporaryError),
        (Answer(200, b"<html>a portal</html>", {"Content-Type": "text/html"}), TemporaryError),
    ],
)
def test_a_listing_that_fails_is_one_sentence(monkeypatch: pytest.MonkeyPatch, answer: Answer, error: type[Exception]) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with scripted_http(lambda *_: answer) as address:
        spec = SiteSpec("s3://bucket/site", endpoint_url=f"http://{address}", region="us-east-1", static_credentials=True)
        with pytest.raises(error) as caught:
            list(open_site(spec).scan())
    assert type(caught.value) is error
    assert "s3://bucket/site" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (s3_error(403, "AccessDenied", "Access Denied"), PermissionError),
        (s3_error(403, "InvalidObjectState", "archived"), PermissionError),
        (s3_error(403, "ExpiredToken", "over"), AuthError),
        (s3_error(404, "NoSuchKey", "gone"), NotFound),
    ],
)
def test_an_object_that_cannot_be_opened(monkeypatch: pytest.MonkeyPatch, answer: Answer, error: type[Exception]) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with scripted_http(lambda *_: answer) as address:
        spec = SiteSpec("s3://bucket/site", endpoint_url=f"http://{address}", region="us-east-1", static_credentials=True)
        for path in (b"x", b"odd\nname"):
            with pytest.raises(error):
                open_site(spec).open(path)


def test_a_body_that_breaks_off_is_an_os_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    head = {"ETag": '"x"', "Last-Modified": "Sun, 22 Nov 2026 01:48:41 GMT", "Content-Length": "3000000", "Connection": "close"}
    with scripted_http(lambda method, path, number: Answer(200 if number == 1 else 404, b"short", head)) as address:
        spec = SiteSpec("s3://bucket/site", endpoint_url=f"http://{address}", region="us-east-1", static_credentials=True)
        content = open_site(spec).open(b"x")
        with content.stream, pytest.raises(OSError, match="broke off"):
            content.stream.read(content.size)


# ------------------------------------------------------------------------------------------------------- what is no site


@pytest.mark.parametrize(
    "url", ["", "a\0b", "file://host/path", "nosuch://x", "sftp://user:word@host/x", "s3://", "s3://bucket/a//b"]
)
def test_a_url_that_cannot_be_one_is_a_usage_error_without_secrets(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_site(SiteSpec(url)).check()
    assert "word" not in str(caught.value)


def test_file_urls_are_folders(tmp_path: Path) -> None:
    (tmp_path / "a b?#").mkdir()
    assert open_site(SiteSpec(f"file://{tmp_path}/a%20b?#")).url == f"{tmp_path}/a b?#"


def test_a_file_is_no_site(tmp_path: Path) -> None:
    import fsspec

    fsspec.filesystem("memory").pipe("/lonely/file", b"x")
    with pytest.raises(SourceError, match="it is a file"):
        open_site(SiteSpec("memory://lonely/file")).check()


def test_links_that_fsspec_tells_of(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    (tmp_path / "l").symlink_to("x")
    seen = {here.path: here for here in open_site(SiteSpec(f"local://{tmp_path}")).scan()}
    assert set(seen) == {b"", b"l", b"x"}
    link = seen[b"l"]
    assert isinstance(link, Found)
    assert (link.kind, link.target) == (SYMLINK, b"x")


def test_a_folder_that_fsspec_cannot_list_is_incomplete() -> None:
    import fsspec
    from fsspec.implementations.memory import MemoryFileSystem

    class Flaky(MemoryFileSystem):  # type: ignore[misc]
        protocol = "flaky"
        store: ClassVar[dict[str, Any]] = {}
        pseudo_dirs: ClassVar[list[str]] = [""]

        @classmethod
        def _strip_protocol(cls, path: str) -> Any:
            return super()._strip_protocol(path.replace("flaky://", "memory://"))

        def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
            if path.endswith("/bad"):
                raise RuntimeError("the library's own words")
            return super().ls(path, detail=detail, **kwargs)

    fsspec.register_implementation("flaky", Flaky, clobber=True)
    for name in ("a", "bad/x", "z"):
        Flaky().pipe(f"/root/{name}", b"")
    seen = list(open_site(SiteSpec("flaky://root")).scan())
    assert [here.path for here in seen] == [b"", b"a", b"bad/", b"bad/", b"z"]
    assert seen[3] == Unread(b"bad/", "incomplete", "the library's own words")
