"""snapshots, ls, cat, sums and diff say what is in a target. The truth is what the system said of the mirrored folders."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st
from mirrors import BEGINNING, Item, in_memory, mirror, noise, settle, target_in, three_nights, tree, write
from xxhash import xxh3_128_hexdigest

from mirror import log
from mirror.contents import ALGORITHMS, cat, diff, diff_site, ls, snapshots, source_text, sums
from mirror.envelope import SEGMENT
from mirror.errors import DamageError, TargetMissingError, UsageError
from mirror.events import Event, Job, Problem, ProblemFound
from mirror.manifest import Entry, File, Folder, Ref, Symlink, cut_entries
from mirror.pick import Reading
from mirror.sides import differences
from mirror.site import SiteSpec
from mirror.snapshot import ManifestReader, ManifestWriter
from mirror.store.memory import MemoryStore
from mirror.survey import LookOptions
from mirror.target import TargetSpec

Nights = list[dict[bytes, Item]]


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> tuple[TargetSpec, Nights, Path]:
    """A target with three snapshots, what was there, and the site as it is now. Not to be changed."""
    folder = tmp_path_factory.mktemp("nights")
    target = target_in(folder)
    return target, three_nights(folder, target), folder / "site"


def listener(events: list[Event]) -> Job:
    return Job("test", [lambda stamped: events.append(stamped.event)])


def problems(events: list[Event]) -> list[Problem]:
    return [event.problem for event in events if isinstance(event, ProblemFound)]


# snapshots


def test_snapshots(nights: tuple[TargetSpec, Nights, Path]) -> None:
    target, seen, site = nights
    lines = snapshots(target)
    assert [line.number for line in lines] == [1, 2, 3]
    assert [line.entries for line in lines] == [len(night) for night in seen]
    assert [line.tags for line in lines] == [(), ("second",), ()]
    assert [(line.added, line.changed, line.moved, line.deleted) for line in lines] == [(69, 0, 0, 0), (1, 1, 1, 1), (0, 1, 0, 11)]
    assert {line.source for line in lines} == {f"{os.uname().nodename}:{site}"}
    assert all(line.complete and not line.problems and line.started <= line.time for line in lines)
    assert lines[0].time < lines[1].time < lines[2].time


def test_snapshots_of_a_target_that_has_none(tmp_path: Path) -> None:
    with pytest.raises(TargetMissingError):
        snapshots(target_in(tmp_path))


def test_a_damaged_record_is_left_out_and_said(tmp_path: Path) -> None:
    target, store = in_memory(str(tmp_path))
    three_nights(tmp_path, target)
    store.objects["log/000000000002.json"] = store.objects["log/000000000002.json"][:-10]
    events: list[Event] = []
    assert [line.number for line in snapshots(target, listener(events))] == [1, 3]
    assert [(p.path, p.kind) for p in problems(events)] == [("log/000000000002.json", "damaged")]


def test_where_a_snapshot_came_from() -> None:
    assert source_text({"site": "www", "url": "s3://bucket/prefix"}) == "s3://bucket/prefix"
    assert source_text({"site": "www", "host": "web1", "path": "/srv"}) == "web1:/srv"
    assert source_text({}) == ""


# ls, cat, sums


@pytest.mark.parametrize("number", [1, 2, 3])
def test_ls_gives_everything(nights: tuple[TargetSpec, Nights, Path], number: int) -> None:
    target, seen, _ = nights
    found = list(ls(target, str(number)))
    assert [entry.path for entry in found] == sorted(seen[number - 1])
    for entry in found:
        item = seen[number - 1][entry.path]
        assert {Folder: "folder", File: "file", Symlink: "link"}[type(entry)] == item.kind
        assert not isinstance(entry, File | Folder) or (entry.mode, entry.mtime) == (item.mode, item.mtime)
        assert not isinstance(entry, Symlink) or entry.target.decode("latin-1") == item.content
        assert not isinstance(entry, File) or (entry.link.decode("latin-1") or entry.path.decode("latin-1")) == (
            item.group or entry.path.decode("latin-1")
        )


def test_ls_of_paths(nights: tuple[TargetSpec, Nights, Path]) -> None:
    assert [entry.path for entry in ls(nights[0], "2", ["a/b/c", "link"])] == [b"a/b/c/", b"a/b/c/d/", b"a/b/c/d/deep", b"link"]
    with pytest.raises(UsageError, match="cannot find odd: it is not in snapshot 3"):
        list(ls(nights[0], "3", ["odd"]))


@pytest.mark.parametrize("number", [1, 2, 3])
def test_cat_gives_every_file(nights: tuple[TargetSpec, Nights, Path], number: int) -> None:
    target, seen, _ = nights
    for path, item in seen[number - 1].items():
        if item.kind == "file":
            assert hashlib.blake2b(b"".join(cat(target, str(number), path)), digest_size=16).hexdigest() == item.content


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("a", "it is no file but a folder"),
        ("link", "it is no file but a link; it leads to pages/page-01.html"),
        ("", "but a folder"),
    ],
)
def test_cat_of_what_is_no_file(nights: tuple[TargetSpec, Nights, Path], path: str, why: str) -> None:
    with pytest.raises(UsageError, match=why):
        list(cat(nights[0], "1", path))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_sums(nights: tuple[TargetSpec, Nights, Path], algorithm: str) -> None:
    target, seen, site = nights
    function = {
        "xxh128": xxh3_128_hexdigest,
        "blake3": lambda d: blake3(d).hexdigest(),
        "sha256": lambda d: hashlib.sha256(d).hexdigest(),
    }
    found = [(path, digest) for digest, path in sums(target, "3", algorithm)]
    assert [path for path, _ in found] == sorted(path for path, item in seen[2].items() if item.kind == "file")
    for path, digest in found:
        assert function[algorithm](Path(os.fsdecode(os.path.join(bytes(site), path))).read_bytes()) == digest


def test_a_sum_file_is_what_sha256sum_takes(nights: tuple[TargetSpec, Nights, Path], tmp_path: Path) -> None:
    target, _, site = nights
    lines = [digest.encode() + b"  " + path + b"\n" for digest, path in sums(target, "3", "sha256")]
    (tmp_path / "sums").write_bytes(b"".join(lines))
    done = subprocess.run(
        ["sha256sum", "--check", "--quiet", "--strict", tmp_path / "sums"], cwd=site, capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, b"")


def test_an_unknown_sum() -> None:
    with pytest.raises(UsageError, match="'md5' is not known; known are xxh128, blake3, sha256"):
        next(sums(TargetSpec(None), "1", "md5"))  # type: ignore[arg-type]


def test_sums_without_contents_read_no_pack(tmp_path: Path) -> None:
    target, store = in_memory(str(tmp_path))
    three_nights(tmp_path, target)
    for key in [key for key in store.objects if key.startswith(("packs/", "index/"))]:
        del store.objects[key]
    assert len(list(sums(target, "1"))) == 58


def test_sums_read_each_pack_once(tmp_path: Path) -> None:
    """Many small files of one pack are one range, not one each."""
    target, store = in_memory(str(tmp_path))
    for number in range(500):
        write(tmp_path / "site" / f"{number % 7}" / f"{number}", noise(3000, number))
    mirror(tmp_path / "site", target)
    asked: list[str] = []
    get_ranges = store.get_ranges
    store.get_ranges = lambda key, ranges: asked.append(key) or get_ranges(key, ranges)  # type: ignore[method-assign]
    assert len(list(sums(target, "latest", "sha256"))) == 500
    assert len(asked) == 1


def test_a_damaged_file_is_left_out_of_the_sums_and_said(tmp_path: Path) -> None:
    target, store = in_memory(str(tmp_path))
    seen = three_nights(tmp_path, target)[2]
    pack = max((key for key in store.objects if key.startswith("packs/")), key=lambda key: len(store.objects[key]))
    data = bytearray(store.objects[pack])
    data[1_500_000] ^= 1
    store.objects[pack] = bytes(data)
    files = {path for path, item in seen.items() if item.kind == "file"}
    for algorithm in ("blake3", "sha256"):
        events: list[Event] = []
        found = {path for _, path in sums(target, "3", algorithm, listener(events))}
        said = {problem.path.encode() for problem in problems(events)}
        assert said
        assert found == files - said
        assert b"index.html" in found
        assert {problem.kind for problem in problems(events)} == {"damaged"}
        assert all(f"{pack}: its checksum does not match" in problem.why for problem in problems(events))
    for path in said:
        with pytest.raises(DamageError):
            list(cat(target, "3", path))


# diff


def told(seen: Nights, before: int, after: int) -> dict[bytes, str]:
    """What differs, from what the system said; moves are not told."""
    one, other = seen[before - 1], seen[after - 1]
    found = dict.fromkeys(other.keys() - one.keys(), "+") | dict.fromkeys(one.keys() - other.keys(), "-")
    for path in one.keys() & other.keys():
        if one[path] != other[path]:
            same = one[path].kind == other[path].kind and one[path].content == other[path].content
            found[path] = "." if same else "*"
    return found


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 3), (1, 3), (3, 1), (2, 1), (2, 2)])
def test_diff_of_snapshots(nights: tuple[TargetSpec, Nights, Path], before: int, after: int) -> None:
    target, seen, _ = nights
    wanted = told(seen, before, after)
    lines = list(diff(target, str(before), str(after)))
    assert [line.path for line, _ in lines] == sorted(line.path for line, _ in lines)
    found = {}
    for line, size in lines:
        if line.symbol == ">":
            found |= {line.path: "+", line.moved_from: "-"}
            assert seen[before - 1][line.moved_from].content == seen[after - 1][line.path].content
            assert size == 300_000
        else:
            found[line.path] = line.symbol
    assert found == wanted
    if (before, after) in ((1, 2), (1, 3)):
        assert [line for line, _ in lines if line.symbol == ">"] == [(">", b"a/moved zeros", b"zeros")]


def test_diff_is_what_the_snapshot_says_of_itself(nights: tuple[TargetSpec, Nights, Path]) -> None:
    with Reading(nights[0]) as reading:
        for number in (2, 3):
            record = reading.pick(str(number))
            lines = [line for line, _ in diff(nights[0], str(number - 1), str(number))]
            assert lines == list(reading.reader.changes(log.ref_of(record.body["changes"])))


def paths_of(draw: st.DrawFn) -> dict[bytes, Entry]:
    names = draw(st.sets(st.integers(0, 4000), max_size=30))
    return {b"%05d" % n: Symlink(b"%05d" % n, b"x%d" % draw(st.integers(0, 2))) for n in names}


@st.composite
def edits(draw: st.DrawFn) -> tuple[int, dict[bytes, Entry | None], dict[bytes, Entry | None]]:
    """A seed for a base, and what two descendants put or drop."""

    def changed() -> dict[bytes, Entry | None]:
        changes: dict[bytes, Entry | None] = dict(paths_of(draw))
        for _ in range(draw(st.integers(0, 3))):
            start = draw(st.integers(0, 4000))
            changes |= {b"%05d" % n: None for n in range(start, start + draw(st.integers(1, 1500)))}
        return changes

    return draw(st.integers(0, 5)), changed(), changed()


def stored(store: MemoryStore, entries: dict[bytes, Entry]) -> Ref:
    writer = ManifestWriter(store, 0, {})
    pieces = cut_entries(entries[path] for path in sorted(entries))
    return writer.tree((writer.put(SEGMENT, piece) for piece in pieces), root_is_node=True)


@settings(max_examples=60, deadline=None)
@given(edits())
def test_differences_of_any_two_manifests(given: tuple[int, dict[bytes, Entry | None], dict[bytes, Entry | None]]) -> None:
    seed, one_change, other_change = given
    base: dict[bytes, Entry] = {b"%05d" % n: Symlink(b"%05d" % n, b"%d" % seed) for n in range(0, 4000, seed + 1)}
    one, other = dict(base), dict(base)
    for entries, change in ((one, one_change), (other, other_change)):
        for path, entry in change.items():
            entries.pop(path, None) if entry is None else entries.update({path: entry})
    store = MemoryStore()
    reader = ManifestReader(store, None)
    found = list(differences(reader, stored(store, one), stored(store, other)))
    wanted = [(one.get(p), other.get(p)) for p in sorted(one.keys() | other.keys()) if one.get(p) != other.get(p)]
    assert found == wanted


class Reads(MemoryStore):
    """Remembers what was read."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[str] = []

    def get(self, key: str, limit: int) -> bytes:
        self.read.append(key)
        return super().get(key, limit)


def test_only_segments_that_differ_are_read() -> None:
    store = Reads()
    base: dict[bytes, Entry] = {b"%07d" % n: Symlink(b"%07d" % n, b"x") for n in range(60_000)}
    changed = base | {b"0030000": Symlink(b"0030000", b"y")}
    del changed[b"0045000"]
    one, other = stored(store, base), stored(store, changed)
    segments = len([key for key in store.objects if key.startswith("manifests/")])
    assert segments > 40
    store.read.clear()
    reader = ManifestReader(store, None)
    assert [(a and a.path, b and b.path) for a, b in differences(reader, one, other)] == [
        (b"0030000", b"0030000"),
        (b"0045000", None),
    ]
    assert len(store.read) <= 8  # two roots, and a segment of each side for each change, not the fifty others
    store.read.clear()
    assert list(differences(reader, one, one)) == []
    assert len(store.read) == 2


def test_a_list_of_chunks_written_again_under_another_epoch_is_no_difference() -> None:
    store = MemoryStore()
    entry = File(b"big", 1, bytes(16), 0, b"", Ref(b"", bytes(32), 0, 65, 0), 5)
    again = File(b"big", 1, bytes(16), 0, b"", Ref(b"", bytes(32), 7, 65, 0), 5)
    touched = File(b"big", 1, bytes(16), 0, b"", Ref(b"", bytes(32), 7, 65, 0), 6)
    reader = ManifestReader(store, None)
    assert list(differences(reader, stored(store, {b"big": entry}), stored(store, {b"big": again}))) == []
    assert len(list(differences(reader, stored(store, {b"big": entry}), stored(store, {b"big": touched})))) == 1


def test_a_tree_that_is_not_what_it_says_is_damage() -> None:
    store = MemoryStore()
    writer = ManifestWriter(store, 0, {})
    a, b = (writer.put(SEGMENT, next(cut_entries([Symlink(name, b"")]))) for name in (b"a", b"b"))
    good = writer.tree([a, b], root_is_node=True)
    backwards = writer.tree([b, a], root_is_node=True)
    with pytest.raises(DamageError, match="it does not fit"):
        list(differences(ManifestReader(store, None), good, backwards))


def test_a_folder_moved_with_many_files(tmp_path: Path) -> None:
    target = target_in(tmp_path)
    for number in range(300):
        write(tmp_path / "site" / "old" / f"{number:03}", noise(200, number))
    settle(tmp_path / "site")
    mirror(tmp_path / "site", target)
    (tmp_path / "site" / "old").rename(tmp_path / "site" / "new")
    settle(tmp_path / "site")
    mirror(tmp_path / "site", target)
    lines = [line for line, _ in diff(target, "1", "2")]
    assert sorted(line.symbol for line in lines) == ["+", "-"] + [">"] * 300
    assert all(line.moved_from.replace(b"old", b"new") == line.path for line in lines if line.symbol == ">")


# diff of a site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, TargetSpec]]:
    """A site that is just what the target's newest snapshot has; the target must not change."""
    target = target_in(tmp_path)
    three_nights(tmp_path, target)
    before = {path: path.lstat().st_mtime_ns for path in (tmp_path / "target").rglob("*")}
    yield tmp_path / "site", target
    assert {path: path.lstat().st_mtime_ns for path in (tmp_path / "target").rglob("*")} == before


def changes(site: Path, target: TargetSpec, at: str = "latest", **options: bool) -> list[tuple[str, bytes, bytes]]:
    return [tuple(line) for line, _ in diff_site(SiteSpec(str(site)), target, at, LookOptions(**options))]


def test_nothing_differs(site: tuple[Path, TargetSpec]) -> None:
    assert changes(*site) == []
    assert changes(*site, checksum=True) == []
    assert changes(*site, at="3") == []


def test_what_a_sync_would_change(site: tuple[Path, TargetSpec]) -> None:
    root, target = site
    write(root / "index.html", b"<h1>third night.</h1>\n", BEGINNING + 1)  # as long as before, with the same time
    write(root / "added", b"added")
    (root / "three").unlink()
    (root / "a" / "moved zeros").rename(root / "zeros again")
    os.utime(root / "pages" / "page-01.html")
    os.chmod(root / "pages" / "page-02.html", 0o600)
    (root / "link").unlink()
    (root / "link").symlink_to("elsewhere")
    settle(root)
    wanted = [
        ("+", b"added", b""),
        ("*", b"index.html", b""),
        ("*", b"link", b""),
        (".", b"pages/page-01.html", b""),
        (".", b"pages/page-02.html", b""),
        ("-", b"three", b""),
        (">", b"zeros again", b"a/moved zeros"),
    ]
    assert changes(root, target) == wanted
    assert changes(root, target, checksum=True) == wanted
    without_cache = TargetSpec(target.store)
    assert changes(root, without_cache, checksum=True) == wanted
    assert ("*", b"index.html", b"") not in changes(root, without_cache)  # size and time are all there is to go by
    report = mirror(root, TargetSpec(target.store, target.cache), dry_run=True)
    assert (report.added, report.moved, report.deleted) == (1, 1, 1)


def test_files_are_read_only_where_that_tells_something(site: tuple[Path, TargetSpec]) -> None:
    root, target = site
    os.truncate(root / "big.bin", 1 << 40)  # whoever reads a terabyte does not come back
    (root / "new and long").touch()
    os.truncate(root / "new and long", 2 << 40)
    settle(root)
    events: list[Event] = []
    found = [line for line, _ in diff_site(SiteSpec(str(root)), target, job=listener(events))]
    assert {(line.symbol, line.path) for line in found} == {("*", b"big.bin"), ("+", b"new and long")}
    assert problems(events) == []


def test_against_an_older_snapshot(site: tuple[Path, TargetSpec]) -> None:
    root, target = site
    now = {line.path: line.symbol for line, _ in diff(target, "1", "3")}
    assert {path: symbol for symbol, path, _ in changes(root, target, at="1")} == now


def test_a_site_inside_its_target(site: tuple[Path, TargetSpec]) -> None:
    with pytest.raises(UsageError, match="it is inside the target"):
        changes(site[0].parent / "target" / "log", site[1])


def test_deletions_are_not_shown_when_the_scan_was_incomplete(tmp_path: Path) -> None:
    """A folder whose rules cannot be read: nothing of it is known."""
    target = target_in(tmp_path)
    root = tmp_path / "site"
    write(root / "a" / "x", b"x")
    write(root / "b", b"b")
    settle(root)
    mirror(root, target)
    (root / "b").unlink()
    (root / "a" / ".mirrorignore").symlink_to("nowhere")
    settle(root)
    events: list[Event] = []
    lines = [line for line, _ in diff_site(SiteSpec(str(root)), target, job=listener(events))]
    assert [line.symbol for line in lines if line.symbol == "-"] == []
    assert [problem.kind for problem in problems(events)] == ["incomplete"]


def test_the_same_site_elsewhere(site: tuple[Path, TargetSpec], tmp_path: Path) -> None:
    copy = shutil.copytree(site[0], tmp_path / "copy", symlinks=True)
    shutil.copystat(site[0], copy)
    assert [line for line in changes(copy, site[1], checksum=True) if line[0] != "."] == []
    assert tree(copy).keys() == tree(site[0]).keys()
