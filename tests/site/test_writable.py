"""What every writable site promises, on every kind: one suite, then what only a bucket can do.

The ground truth goes past the site: the operating system, boto3, or fsspec's own calls.
"""

from __future__ import annotations

import hashlib
import os
import random
import threading
import uuid
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest
from conftest import S3
from servers import LOST, Answer, s3_error, scripted_http

from mirror.errors import AuthError, TargetMissingError, TemporaryError, UsageError
from mirror.site import (
    ANYTHING,
    CONDITIONS,
    COPIES,
    FOLDERS,
    LINKS,
    MODES,
    TIMES,
    TYPES,
    CopyingSite,
    Found,
    LinkingSite,
    Lost,
    SiteSpec,
    TreeSite,
    Unchanged,
    WritableSite,
    Written,
)  # fmt: skip
from mirror.site.bucket_writing import WHOLE, WritableBucket
from mirror.site.mediatypes import media_type
from mirror.site.open import open_writable
from mirror.site.parts import COPY_MOST, PART_LEAST, PARTS_MOST, Sent, parts_of
from mirror.site.writing import Description

MIB = 1 << 20
MTIME = 1_700_000_000_123_456_789
PLAIN = Description()


@dataclass(frozen=True)
class Place:
    """A writable site, what is really there, and a way to put something there past it. uploads: unfinished ones."""

    spec: SiteSpec
    look: Callable[[], dict[bytes, bytes]]
    plant: Callable[[str, bytes], None]
    hidden: Callable[[], list[str]]

    def site(self) -> WritableSite:
        return open_writable(self.spec)


@contextmanager
def folder_place(root: Path, scheme: str = "") -> Iterator[Place]:
    def plant(name: str, data: bytes) -> None:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)

    def look() -> dict[bytes, bytes]:
        return {os.fsencode(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}

    def hidden() -> list[str]:
        return [p.name for p in root.rglob(".mirror-tmp-*")]

    yield Place(SiteSpec(f"{scheme}{root}"), look, plant, hidden)


@contextmanager
def s3_place(s3: S3) -> Iterator[Place]:
    start = f"{s3.prefix}/site/"

    def plant(name: str, data: bytes) -> None:
        s3.client.put_object(Bucket=s3.bucket, Key=start + name, Body=data)

    def look() -> dict[bytes, bytes]:
        return {key.encode(): s3.client.get_object(Bucket=s3.bucket, Key=start + key)["Body"].read() for key in s3.objects("site")}

    def hidden() -> list[str]:
        uploads = s3.client.list_multipart_uploads(Bucket=s3.bucket, Prefix=start).get("Uploads", ())
        return [upload["Key"] for upload in uploads]

    yield Place(spec_of(s3), look, plant, hidden)


def spec_of(s3: S3, **settings: Any) -> SiteSpec:
    values = {"endpoint_url": s3.endpoint_url, "region": s3.region, "static_credentials": True} | settings
    return SiteSpec(s3.url("site"), **values)


@contextmanager
def memory_place() -> Iterator[Place]:
    import fsspec

    root, files = f"/{uuid.uuid4().hex}", fsspec.filesystem("memory")

    def look() -> dict[bytes, bytes]:
        return {
            name.removeprefix(f"{root}/").encode(): data.getvalue() for name, data in files.store.items() if name.startswith(root)
        }

    def plant(name: str, data: bytes) -> None:
        files.makedirs(f"{root}/{name}".rpartition("/")[0], exist_ok=True)
        files.pipe(f"{root}/{name}", data)

    yield Place(SiteSpec(f"memory:/{root}"), look, plant, lambda: [name for name in files.store if ".mirror-tmp-" in name])
    if files.exists(root):
        files.rm(root, recursive=True)


@pytest.fixture(params=["folder", "s3", "memory", "local"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    made = {
        "folder": lambda: folder_place(tmp_path / "deep" / "site"),
        "s3": lambda: s3_place(request.getfixturevalue("s3")),
        "memory": memory_place,
        "local": lambda: folder_place(tmp_path / "deep" / "site", "local://"),
    }[request.param]()
    with made as place:
        yield place


@pytest.fixture
def bucket(s3: S3) -> Iterator[Place]:
    with s3_place(s3) as place:
        yield place


def put(site: WritableSite, path: bytes, data: bytes, what: Description = PLAIN, expected: str | None = ANYTHING) -> Written | Lost:
    return site.put(path, len(data), [data], what, expected)


def files(site: WritableSite) -> dict[bytes, int]:
    """What a scan finds."""
    return {here.path: here.size for here in site.scan() if isinstance(here, Found) and here.kind == "file"}


def noise(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


# -- what all promise -----------------------------------------------------------------------------------------------------

# No backslash: SeaweedFS takes it for a slash, whoever asks (4.0, also with boto3).
NAMES = ["a", "a-b/c", "café/é.txt", "with space+plus%25", "x/y/z/deep.html", "quote'\"&<>#?;", "~", "[0]*", "a.b"]


def test_what_is_not_there_is_empty_and_is_made_by_the_first_file(place: Place) -> None:
    site = place.site()
    assert files(site) == {}
    assert site.look(b"a") is None
    assert site.remove(b"a") == Written()
    assert isinstance(put(site, b"x/a", b"one"), Written)
    assert place.look() == {b"x/a": b"one"}


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_there_under_its_own_name(place: Place, name: str) -> None:
    site = place.site()
    assert site.fault(name.encode()) == ""
    put(site, name.encode(), b"content")
    assert place.look() == {name.encode(): b"content"}
    assert files(site) == {name.encode(): 7}
    found = site.look(name.encode())
    assert found is not None
    assert found.size == 7
    content = site.open(name.encode())
    with content.stream:
        assert content.stream.read(100) == b"content"
    site.remove(name.encode())
    assert place.look() == {}


@pytest.mark.parametrize("size", [0, 1, WHOLE, WHOLE + 1, 17 * MIB + 5])
def test_every_size_arrives_whole(place: Place, size: int) -> None:
    data = noise(size)
    chunks = (data[at : at + 300_007] for at in range(0, size, 300_007))
    assert isinstance(place.site().put(b"f", size, chunks, PLAIN), Written)
    assert hashlib.sha256(place.look()[b"f"]).digest() == hashlib.sha256(data).digest()
    assert place.hidden() == []


def test_a_file_is_replaced(place: Place) -> None:
    site = place.site()
    place.plant("f", b"an older and longer one")
    put(site, b"f", b"new")
    put(site, b"f", b"newer")
    assert place.look() == {b"f": b"newer"}


class Broken(Exception):
    """Not ours, not the site's."""


@pytest.mark.parametrize("size", [10, WHOLE + 20])
@pytest.mark.parametrize("fault", ["raises", "short", "long"])
def test_what_was_there_stays_when_the_content_breaks_off(place: Place, size: int, fault: str) -> None:
    place.plant("f", b"old")

    def chunks() -> Iterator[bytes]:
        yield b"x" * (size // 2)
        if fault == "raises":
            raise Broken
        if fault == "long":
            yield b"x" * size

    with pytest.raises(Broken if fault == "raises" else OSError):
        place.site().put(b"f", size, chunks(), PLAIN)
    assert place.look() == {b"f": b"old"}
    assert place.hidden() == []


BAD = [b"../x", b"a/../../x", b"/etc/x", b"a//b", b"./x", b"..", b"a\0b", b"a/..", b"", b"a/"]


@pytest.mark.parametrize("path", BAD, ids=repr)
def test_no_path_leads_out(place: Place, path: bytes) -> None:
    site = place.site()
    put(site, b"in", b"")
    before = place.look()
    assert site.fault(path) != ""
    with pytest.raises(OSError):
        put(site, path, b"evil")
    if path and not path.endswith(b"/"):
        with pytest.raises(OSError):
            site.remove(path)
    assert place.look() == before


def test_removing_is_for_one_path_and_may_be_repeated(place: Place) -> None:
    site = place.site()
    for name in ("d/f", "d/g", "df"):
        place.plant(name, b"")
    for _ in range(2):
        assert site.remove(b"d/f") == Written()
    assert set(place.look()) == {b"d/g", b"df"}


def test_many_threads_write_at_once(place: Place) -> None:
    site = place.site()
    start = threading.Barrier(8)

    def work(number: int) -> None:
        start.wait()
        for each in range(5):
            put(site, b"d%d/f%d" % (each, number), b"%d" % number)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert place.look() == {b"d%d/f%d" % (each, number): b"%d" % number for each in range(5) for number in range(8)}


def test_a_site_may_be_closed_twice_and_swept(place: Place) -> None:
    site = place.site()
    put(site, b"f", b"")
    assert site.sweep() == 0
    site.close()
    site.close()
    assert place.look() == {b"f": b""}


# -- what they keep -------------------------------------------------------------------------------------------------------


def test_times_come_back_as_they_were_given_or_are_not_promised(place: Place) -> None:
    site = place.site()
    put(site, b"f", b"x", Description(mtime=MTIME))
    put(site, b"big", bytes(WHOLE + 1), Description(mtime=MTIME))
    for path in (b"f", b"big"):
        found = site.look(path)
        assert found is not None
        assert (found.mtime == MTIME) == (TIMES in site.keeps)


def test_conditions_hold_or_are_refused(place: Place) -> None:
    site = place.site()
    if CONDITIONS not in site.keeps:
        for expected in (None, "tag"):
            with pytest.raises(ValueError):
                put(site, b"f", b"x", expected=expected)
            with pytest.raises(ValueError):
                site.remove(b"f", expected)
        assert place.look() == {}
        return
    first = put(site, b"f", b"one", expected=None)
    assert isinstance(first, Written)
    assert first.tag
    there = site.look(b"f")
    assert there is not None
    assert there.tag == first.tag
    assert put(site, b"f", b"two", expected=None) == Lost(there)
    assert put(site, b"f", b"two", expected="another") == Lost(there)
    assert put(site, b"none", b"two", expected=first.tag) == Lost(None)
    assert place.look() == {b"f": b"one"}
    second = put(site, b"f", b"two", expected=first.tag)
    assert isinstance(second, Written)
    assert site.remove(b"f", first.tag) == Lost(site.look(b"f"))
    place.plant("f", b"a stranger's")
    assert isinstance(put(site, b"f", b"three", expected=second.tag), Lost)
    assert isinstance(site.remove(b"f", second.tag), Lost)
    assert place.look() == {b"f": b"a stranger's"}
    now = site.look(b"f")
    assert now is not None
    assert site.remove(b"f", now.tag) == Written()
    assert site.remove(b"f", now.tag) == Lost(None)
    assert place.look() == {}


def test_conditions_hold_for_large_files(place: Place) -> None:
    site, data = place.site(), noise(WHOLE + 1)
    if CONDITIONS not in site.keeps:
        assert FOLDERS in site.keeps, "covered by the test before"
        return
    first = put(site, b"f", data, expected=None)
    assert isinstance(first, Written)
    assert isinstance(put(site, b"f", data[::-1], expected=None), Lost)
    assert isinstance(put(site, b"f", data[::-1], expected="another"), Lost)
    assert isinstance(put(site, b"none", data, expected="another"), Lost)
    assert place.look() == {b"f": data}
    assert isinstance(put(site, b"f", data[::-1], expected=first.tag), Written)
    assert place.look() == {b"f": data[::-1]}
    assert place.hidden() == []


def test_one_of_many_creators_wins(place: Place) -> None:
    site = place.site()
    if CONDITIONS not in site.keeps:
        with pytest.raises(ValueError):
            put(site, b"f", b"", expected=None)
        return
    start = threading.Barrier(6)

    def create(number: int) -> Written | Lost:
        start.wait()
        return put(site, b"f", b"%d" % number, expected=None)

    with ThreadPoolExecutor(6) as pool:
        outcomes = list(pool.map(create, range(6)))
    (winner,) = [number for number, outcome in enumerate(outcomes) if isinstance(outcome, Written)]
    assert place.look() == {b"f": b"%d" % winner}


def test_folders_are_made_or_there_are_none(place: Place) -> None:
    site = place.site()
    if FOLDERS not in site.keeps:
        assert site.fault(b"d/") != ""
        put(site, b"a", b"a file")
        put(site, b"a/b", b"and below it")
        assert place.look() == {b"a": b"a file", b"a/b": b"and below it"}
        return
    tree = cast(TreeSite, site)
    assert tree.make_folder(b"d/e/")
    assert not tree.make_folder(b"d/e/")
    put(site, b"d/e/f", b"")
    with pytest.raises(OSError):
        site.remove(b"d/e/")
    assert place.look() == {b"d/e/f": b""}
    with pytest.raises(OSError):
        put(site, b"d/e", b"where a folder is")
    with pytest.raises(OSError):
        put(site, b"d/e/f/g", b"below a file")
    assert place.look() == {b"d/e/f": b""}
    site.remove(b"d/e/f")
    site.remove(b"d/e/")
    site.remove(b"d/e/")
    assert [here.path for here in site.scan() if isinstance(here, Found)] == [b"", b"d/"]
    with pytest.raises(OSError):
        tree.make_folder(b"../e/")


def test_a_folder_keeps_modes_links_and_its_own_time(tmp_path: Path) -> None:
    site = cast(LinkingSite, open_writable(SiteSpec(str(tmp_path / "site"))))
    assert {LINKS, MODES, TIMES} <= site.keeps
    site.put(b"d/f", 1, [b"x"], Description(mtime=MTIME, mode=0o640))
    site.make_link(b"d/l", b"../nowhere", Description(mtime=MTIME))
    site.describe(b"d/", Description(mtime=MTIME, mode=0o750))
    seen = os.lstat(tmp_path / "site/d/f")
    assert (seen.st_mode & 0o7777, seen.st_mtime_ns) == (0o640, MTIME)
    assert os.readlink(tmp_path / "site/d/l") == "../nowhere"
    assert os.lstat(tmp_path / "site/d/l").st_mtime_ns == MTIME
    seen = os.lstat(tmp_path / "site/d")
    assert (seen.st_mode & 0o7777, seen.st_mtime_ns) == (0o750, MTIME)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "site/out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        put(site, b"out/f", b"through a link")
    assert list((tmp_path / "elsewhere").iterdir()) == []


# -- what only a bucket does ----------------------------------------------------------------------------------------------


def head(s3: S3, name: str) -> dict[str, Any]:
    found: dict[str, Any] = s3.client.head_object(Bucket=s3.bucket, Key=f"{s3.prefix}/site/{name}")
    return found


@pytest.mark.parametrize("size", [1, WHOLE + 1])
def test_headers_of_an_object(s3: S3, bucket: Place, size: int) -> None:
    site = bucket.site()
    assert TYPES in site.keeps
    headers = (("Cache-Control", "max-age=60"), ("x-amz-acl", "public-read"), ("Content-Language", "de\r\nX-Evil: 1"))
    outcome = put(site, b"a/style.CSS", bytes(size), Description(mtime=MTIME, headers=headers))
    assert isinstance(outcome, Written)
    assert outcome.unset == (
        "its header x-amz-acl cannot be set on an object",
        "its header Content-Language cannot be set on an object",
    )
    seen = head(s3, "a/style.CSS")
    assert (seen["ContentType"], seen["CacheControl"]) == ("text/css", "max-age=60")
    assert seen["Metadata"] == {"mtime": "1700000000.123456789"}
    put(
        site,
        b"page",
        bytes(size),
        Description(media_type="text/html; charset=latin1", headers=(("x-amz-website-redirect-location", "/x"),)),
    )
    seen = head(s3, "page")
    assert seen["ContentType"] == "text/html; charset=latin1"
    assert seen["Metadata"] == {}


def test_media_types_do_not_depend_on_the_host() -> None:
    assert [media_type(name) for name in (b"a.js", b"a/b.woff2", b"x.svg", b"a.html/readme", b"x.", b"a.PHP", b"\xff.png")] == [
        "text/javascript", "font/woff2", "image/svg+xml", "application/octet-stream", "application/octet-stream",
        "application/octet-stream", "image/png",
    ]  # fmt: skip


def test_names_that_no_key_can_have(bucket: Place, s3: S3) -> None:
    site = bucket.site()
    room = 1024 - len(f"{s3.prefix}/site/")
    assert site.fault(b"x" * room) == ""
    assert "1,025 bytes" in site.fault(b"x" * (room + 1))
    assert "UTF-8" in site.fault(b"latin-\xe9.html")
    assert site.fault("é".encode() * (room // 2 + 1)) != ""


def test_names_with_control_characters(bucket: Place) -> None:
    site = bucket.site()
    for path in (b"new\nline", b"tab\t.css", b"d/\x01"):
        tag = put(site, path, b"odd", Description(mtime=MTIME), expected=None)
        assert isinstance(tag, Written)
        found = site.look(path)
        assert found is not None
        assert (found.tag, found.size, found.mtime) == (tag.tag, 3, MTIME)
        assert isinstance(put(site, path, b"other", expected=None), Lost)
    assert set(bucket.look()) == {b"new\nline", b"tab\t.css", b"d/\x01"}
    for path in bucket.look():
        site.remove(path)
    assert bucket.look() == {}


def test_a_copy_is_made_on_the_other_side(bucket: Place, s3: S3) -> None:
    site = cast(CopyingSite, bucket.site())
    assert COPIES in site.keeps
    data = noise(WHOLE + 1)
    put(site, b"old name+%.html", data, Description(mtime=1))
    assert isinstance(site.copy(b"old name+%.html", b"d/new.html", Description(mtime=MTIME), None), Written)
    assert isinstance(site.copy(b"old name+%.html", b"d/new.html", Description(mtime=5), None), Lost)
    assert bucket.look() == {b"old name+%.html": data, b"d/new.html": data}
    assert head(s3, "d/new.html")["Metadata"] == {"mtime": "1700000000.123456789"}
    with pytest.raises(FileNotFoundError):
        site.copy(b"none", b"d/none", PLAIN)
    there = site.look(b"d/new.html")
    assert there is not None
    again = site.copy(b"d/new.html", b"d/new.html", Description(mtime=7, media_type="text/plain"), there.tag)
    assert isinstance(again, Written)
    seen = head(s3, "d/new.html")
    assert (seen["Metadata"], seen["ContentType"]) == ({"mtime": "0.000000007"}, "text/plain")
    assert bucket.look()[b"d/new.html"] == data


def test_only_what_changed_is_sent(bucket: Place) -> None:
    site = cast(CopyingSite, bucket.site())
    old = noise(40 * MIB)
    first = put(site, b"f", old)
    assert isinstance(first, Written)
    new = b"!" + old[: 20 * MIB] + b"inserted" + old[25 * MIB :]
    runs = [Unchanged(1, 0, 20 * MIB), Unchanged(20 * MIB + 9, 25 * MIB, 15 * MIB)]
    assert all(new[run.at : run.at + run.length] == old[run.old : run.old + run.length] for run in runs)
    sent = []

    def content(at: int, length: int) -> Iterator[bytes]:
        sent.append(length)
        yield from (new[low : min(low + 100_000, at + length)] for low in range(at, at + length, 100_000))

    assert isinstance(site.put_changed(b"f", len(new), runs, content, Description(mtime=MTIME), "another"), Lost)
    assert bucket.look()[b"f"] == old
    sent.clear()
    outcome = site.put_changed(b"f", len(new), runs, content, Description(mtime=MTIME), first.tag)
    assert isinstance(outcome, Written)
    assert hashlib.sha256(bucket.look()[b"f"]).digest() == hashlib.sha256(new).digest()
    assert sum(sent) <= 10 * MIB, "two stretches of the least that a part may have"
    found = site.look(b"f")
    assert found is not None
    assert (found.tag, found.mtime) == (outcome.tag, MTIME)
    assert bucket.hidden() == []


@pytest.mark.parametrize("seed", range(40))
def test_parts_are_what_the_service_takes(seed: int) -> None:
    """Against bytes: each position of the new content stands for where it comes from."""
    chance = random.Random(seed)
    runs, at, old = [], 0, 0
    for _ in range(chance.randrange(12)):
        at += chance.choice((0, 1, 1000, PART_LEAST - 1, PART_LEAST, 40 * MIB))
        old += chance.choice((0, 0, 7, 3 * MIB))
        length = chance.choice((1, 1000, PART_LEAST - 1, PART_LEAST, PART_LEAST + 1, 2 * PART_LEAST, 300 * MIB, 6 << 30))
        runs.append(Unchanged(at, old, length))
        at, old = at + length, old + length
    size = at + chance.choice((0, 1, PART_LEAST, 17 * MIB))
    parts = parts_of(size, chance.sample(runs, len(runs)))
    assert len(parts) <= PARTS_MOST
    end = 0
    for part in parts:
        assert part.at == end
        end += part.length
        assert part.length >= PART_LEAST or part is parts[-1]
        if isinstance(part, Sent):
            assert part.length <= 32 * MIB
            continue
        assert part.length <= COPY_MOST
        for place in (part.at, part.at + part.length - 1):
            assert any(
                run.at <= place < run.at + run.length and place - run.at == part.old + place - part.at - run.old for run in runs
            )
    assert end == size


def test_many_short_runs_still_fit() -> None:
    step = 11 * MIB
    runs = [Unchanged(number * step + 1, number * step, step - 1) for number in range(20_000)]
    assert len(parts_of(20_000 * step, runs)) <= PARTS_MOST
    for wrong in ([Unchanged(0, 0, 11)], [Unchanged(0, 0, 5), Unchanged(4, 9, 5)], [Unchanged(0, -1, 5)]):
        with pytest.raises(ValueError):
            parts_of(10, wrong)


def test_an_upload_that_fails_is_taken_back(s3: S3, bucket: Place) -> None:
    bucket.plant("f", b"old")
    parts = iter(range(1, 100))

    def reply(method: str, path: str, number: int) -> Answer | None:
        if method == "PUT" and "partNumber=" in path and next(parts) > 1:
            return s3_error(403, "AccessDenied", "Access Denied")
        return None

    with scripted_http(reply, s3.endpoint_url.removeprefix("http://")) as address:
        site = open_writable(spec_of(s3, endpoint_url=f"http://{address}"))
        with pytest.raises(AuthError) as caught:
            put(site, b"f", noise(40 * MIB))
    assert "site/f" in str(caught.value)
    assert bucket.look() == {b"f": b"old"}
    assert bucket.hidden() == []


@pytest.mark.parametrize("size", [3, WHOLE + 1])
def test_a_lost_answer_is_no_lost_race(s3: S3, bucket: Place, size: int) -> None:
    """The write is done, its answer never comes, and it is sent again: what is there now is ours."""
    lost = []

    def reply(method: str, path: str, number: int) -> Answer | None:
        last = (method == "PUT" and "partNumber" not in path) if size < WHOLE else (method == "POST" and "uploadId=" in path)
        if last and not lost:
            lost.append(path)
            return LOST
        return None

    with scripted_http(reply, s3.endpoint_url.removeprefix("http://")) as address:
        site = open_writable(spec_of(s3, endpoint_url=f"http://{address}"))
        assert isinstance(put(site, b"f", noise(size), expected=None), Written)
        assert isinstance(put(site, b"f", noise(size, 1), expected=None), Lost)
    assert len(lost) == 1
    assert bucket.look() == {b"f": noise(size)}


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (s3_error(403, "AccessDenied", "Access Denied"), AuthError),
        (s3_error(404, "NoSuchBucket", "none"), TargetMissingError),
        (s3_error(507, "XMinioStorageFull", "full"), TemporaryError),
        (s3_error(400, "KeyTooLongError", "too long"), OSError),
    ],
)
def test_a_refusal_is_one_sentence(monkeypatch: pytest.MonkeyPatch, answer: Answer, error: type[Exception]) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with scripted_http(lambda *_: answer) as address:
        spec = SiteSpec("s3://bucket/site", endpoint_url=f"http://{address}", region="us-east-1", static_credentials=True)
        site = cast(CopyingSite, open_writable(spec))
        for act in (
            lambda: put(site, b"x", b"y"),
            lambda: put(site, b"odd\n", b"y"),
            lambda: put(site, b"x", bytes(WHOLE + 1)),
            lambda: site.remove(b"x"),
        ):
            with pytest.raises(error) as caught:
                act()
            assert type(caught.value) is error
            assert "\n" not in str(caught.value)


def test_abandoned_uploads_are_swept_only_below_the_prefix_and_when_old(s3: S3, bucket: Place) -> None:
    """A listing in which one is old, one young, one elsewhere."""
    start = f"{s3.prefix}/site/"
    ended = []

    def upload(key: str, when: str) -> str:
        return f"<Upload><Key>{key}</Key><UploadId>{key[-3:]}</UploadId><Initiated>{when}</Initiated></Upload>"

    def reply(method: str, path: str, number: int) -> Answer | None:
        if method == "DELETE":
            ended.append(path.partition("uploadId=")[2].partition("&")[0])
            return Answer(204)
        assert "uploads" in path
        assert f"prefix={start}".replace("/", "%2F") in path
        body = upload(f"{start}old", "2020-01-01T00:00:00.000Z") + upload(f"{start}new", "2120-01-01T00:00:00.000Z")
        return Answer(
            200, f"<ListMultipartUploadsResult>{body}</ListMultipartUploadsResult>".encode(), {"Content-Type": "application/xml"}
        )

    with scripted_http(reply) as address:
        assert open_writable(spec_of(s3, endpoint_url=f"http://{address}")).sweep() == 1
    assert ended == ["old"]


def test_who_may_only_read_is_told_so(s3: S3, bucket: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.plant("f", b"old")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.server.reader.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.server.reader.secret_key)
    site = WritableBucket(replace(bucket.spec))
    for act in (lambda: put(site, b"g", b""), lambda: put(site, b"g", bytes(WHOLE + 1)), lambda: site.remove(b"f")):
        with pytest.raises(AuthError):
            act()
    assert bucket.look() == {b"f": b"old"}


# -- what only fsspec does ------------------------------------------------------------------------------------------------


def test_a_place_that_can_only_be_read_says_so(tmp_path: Path) -> None:
    import fsspec
    from fsspec.spec import AbstractFileSystem

    class ReadOnly(AbstractFileSystem):  # type: ignore[misc]
        """As fsspec's base class has it: what is written goes nowhere, and nothing is said."""

        protocol = "readonly"

        def info(self, path: str, **kwargs: Any) -> dict[str, Any]:
            if path.strip("/") != "x":
                raise FileNotFoundError(path)
            return {"name": path, "size": 0, "type": "directory"}

        def ls(self, path: str, detail: bool = True, **kwargs: Any) -> list[Any]:
            return []

    fsspec.register_implementation("readonly", ReadOnly, clobber=True)
    with zipfile.ZipFile(tmp_path / "site.zip", "w") as file:
        file.writestr("f", b"")
    for url in ("readonly://x", f"zip://::file://{tmp_path}/site.zip"):
        with pytest.raises(UsageError, match="it can only be read") as caught:
            put(open_writable(SiteSpec(url)), b"g", b"")
        assert "source" not in str(caught.value)


def test_a_place_that_cannot_be_opened_is_no_source() -> None:
    with pytest.raises(UsageError) as caught:
        open_writable(SiteSpec("nosuch://user:word@x"))
    assert "source" not in str(caught.value)
    assert "word" not in str(caught.value)
