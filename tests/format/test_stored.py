"""A mirror that was stored when version 1 was fixed (make_stored.py). Whatever is changed, it must stay readable as it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from mirrors import Item, tree
from test_independent import restore
from xxhash import xxh3_128_hexdigest

from mirror import log
from mirror.contents import cat, diff, ls, snapshots, sums
from mirror.errors import UsageError
from mirror.manifest import File, Folder, Page, Redirect, Symlink
from mirror.pick import Reading
from mirror.store import StoreSpec
from mirror.store.fs import FolderStore
from mirror.target import TargetSpec

STORED = Path(__file__).with_name("v1")
LIVE = [1, 3, 6]


@pytest.fixture(scope="module")
def expected() -> dict[int, dict[bytes, Item]]:
    """What the snapshots of the folder hold, by number."""
    told = json.loads((STORED / "expected.json").read_text("ascii"))
    return {int(n): {path.encode("latin-1"): Item(*item) for path, item in night.items()} for n, night in told.items()}


@pytest.fixture
def target(tmp_path: Path) -> Iterator[TargetSpec]:
    """A copy, which must be as it was in the end."""
    copy = shutil.copytree(STORED / "mirror", tmp_path / "mirror")
    before = {path: path.stat().st_mtime_ns for path in copy.rglob("*")}
    yield TargetSpec(StoreSpec(str(copy)))
    assert {path: path.stat().st_mtime_ns for path in copy.rglob("*")} == before


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in STORED.rglob("*") if path.is_file()) < 200_000


@pytest.mark.parametrize("number", [1, 6])
def test_the_independent_reader_restores_it(tmp_path: Path, expected: dict[int, dict[bytes, Item]], number: int) -> None:
    done = restore(STORED / "mirror", number, tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert tree(tmp_path / "out") == expected[number]


def test_snapshots(target: TargetSpec) -> None:
    lines = snapshots(target)
    assert [line.number for line in lines] == LIVE
    assert [line.tags for line in lines] == [("first",), ("pages",), ()]
    assert lines[1].source == "https://example.org/"


@pytest.mark.parametrize("number", [1, 6])
def test_entries_and_contents(target: TargetSpec, expected: dict[int, dict[bytes, Item]], number: int) -> None:
    kinds = {Folder: "folder", File: "file", Symlink: "link"}
    found = {}
    for entry in ls(target, str(number)):
        assert isinstance(entry, Folder | File | Symlink)
        content = "" if isinstance(entry, Folder) else entry.target.decode("latin-1") if isinstance(entry, Symlink) else "file"
        found[entry.path] = (kinds[type(entry)], entry.mtime, content, getattr(entry, "mode", 0))
    wanted = {p: (i.kind, i.mtime, "file" if i.kind == "file" else i.content, i.mode) for p, i in expected[number].items()}
    assert found == wanted
    files = {path for path, item in expected[number].items() if item.kind == "file"}
    for algorithm in ("xxh128", "sha256", "blake3"):
        assert {path for _, path in sums(target, str(number), algorithm)} == files
    for digest, path in sums(target, str(number)):
        assert xxh3_128_hexdigest(b"".join(cat(target, str(number), path))) == digest


def test_pages_and_redirects(target: TargetSpec) -> None:
    page, redirect = ls(target, "3")
    assert isinstance(page, Page)
    assert (page.url, page.status, page.etag, page.media_type) == ("https://example.org/", 200, '"33a64df5"', "text/html")
    assert page.links == ("https://example.org/old", "https://example.org/style.css")
    assert page.headers[0] == ("Cache-Control", "max-age=60")
    assert redirect == Redirect(b"old", "https://example.org/old", 301, "https://example.org/", 1_700_000_000_123_456_789)
    assert b"".join(cat(target, "3", "index.html")) == b"<title>A page</title>\n" * 30


def test_differences(target: TargetSpec) -> None:
    found = {(line.symbol, line.path) for line, _ in diff(target, "1", "6")}
    assert found == {("*", b"index.html"), ("*", b"same.html"), ("-", b"empty")}


def test_what_was_forgotten_and_what_was_doomed(target: TargetSpec) -> None:
    with Reading(target) as reading:
        assert reading.head
        assert reading.head.number == 6
        with pytest.raises(UsageError, match="snapshot 2 was forgotten; live are 1, 3, 6"):
            reading.pick("2")
        doomed = [stat.key for stat in reading.store.list("index/") if reading.dooms(stat.key)]
        assert len(doomed) == 1  # it is there, and lies


def test_records_and_members_that_nobody_knows_are_kept() -> None:
    record = log.read_record(FolderStore(str(STORED / "mirror")), 4)
    assert record.kind == "weather"
    assert record.body["forecast"] == {"tomorrow": ["rain", None, 1.5]}
