"""What operators give a program at three in the morning: one sentence, the documented exit code, and nothing good is lost."""

from __future__ import annotations

import json
import os
import random
import shutil
import sqlite3
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import S3
from drive import as_nobody, cli, drafts, give_to_nobody, process, same, shape, shared_folder, shell, truth
from mirrors import BEGINNING, make_site, noise, settle, write

__all__ = ["shared_folder"]
ROOT = os.geteuid() == 0


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return make_site(tmp_path / "site")


@pytest.fixture
def target(tmp_path: Path, site: Path) -> Path:
    """A mirror of the site."""
    assert cli("sync", site, tmp_path / "target", "--layout", "packed", "--site", "www").code == 0
    return tmp_path / "target"


def refused(code: int, *words: object, say: tuple[str, ...]) -> str:
    """The command fails with this code and a sentence that says all this."""
    done = cli(*words)
    assert done.code == code, done
    for each in say:
        assert each in done.error, (each, done.error)
    return done.error


# -- sources ------------------------------------------------------------------------------------------------------------


def test_a_missing_source(target: Path, site: Path, tmp_path: Path) -> None:
    before = shape(target)
    shutil.move(site, tmp_path / "unmounted")
    refused(3, "sync", site, target, say=(str(site), "does not exist", "mounted"))
    refused(3, "sync", site, tmp_path / "new", "--layout", "packed", say=(str(site),))
    assert not (tmp_path / "new").exists()
    write(tmp_path / "file", b"no folder")
    refused(3, "sync", tmp_path / "file", target, say=("not a folder",))
    assert shape(target) == before


def test_an_emptied_source(target: Path, site: Path) -> None:
    before = shape(target)
    shutil.rmtree(site)
    site.mkdir()
    refused(3, "sync", site, target, say=(str(site), "empty", "--allow-empty-source", "mounted"))
    write(site / ".nfs0001", b"a leftover")
    refused(25, "sync", site, target, say=("would be deleted",))
    os.unlink(site / ".nfs0001")
    assert shape(target) == before
    assert cli("sync", site, target, "--allow-empty-source").code == 0
    assert cli("ls", target).out == "./\n"
    assert cli("restore", target, site, "--at", 1, "--in-place").code == 0


def test_an_unreadable_source(shared_folder: Path) -> None:
    write(shared_folder / "site" / "a", b"a")
    os.chmod(shared_folder / "site", 0o000)
    if ROOT:
        done = as_nobody("sync", shared_folder / "site", shared_folder / "target", "--layout", "packed")
        assert done.code == 3
        assert "permission denied" in done.error
    os.chmod(shared_folder / "site", 0o755)


@pytest.mark.parametrize("through_links", [False, True])
def test_source_and_target_within_each_other(site: Path, tmp_path: Path, through_links: bool) -> None:
    (tmp_path / "s").symlink_to(site)
    (tmp_path / "t").symlink_to(site / "pages")
    inside = tmp_path / "t" / "new" if through_links else site / "pages" / "new"
    source = tmp_path / "s" if through_links else site
    before = shape(site)
    refused(2, "sync", source, inside, "--layout", "packed", say=(str(site), "inside"))
    refused(2, "sync", inside.parent, source, "--layout", "packed", say=(str(site), "inside"))
    refused(2, "sync", source, site, "--layout", "packed", say=(str(site), "itself"))
    refused(2, "sync", f"{site}//", f"{site}/pages/../", "--layout", "packed", say=("itself",))
    assert shape(site) == before
    beside = Path(f"{site}-backup")
    assert cli("sync", source, beside, "--layout", "packed").code == 0


# -- the deletion guard -------------------------------------------------------------------------------------------------


def files(site: Path, count: int) -> Path:
    for number in range(count):
        write(site / f"{number:04}", b"%d" % number)
    return site


@pytest.mark.parametrize(
    ("there", "gone", "options", "code"),
    [
        (9, 5, [], 0),
        (9, 6, [], 25),
        (1199, 300, [], 0),
        (1199, 301, [], 25),
        (600, 256, [], 0),
        (600, 258, [], 25),
        (99, 10, ["--max-delete", "10"], 0),
        (99, 11, ["--max-delete", "10"], 25),
        (99, 10, ["--max-delete", "10%"], 0),
        (99, 11, ["--max-delete", "10%"], 25),
        (9, 1, ["--max-delete", "0"], 25),
        (9, 1, ["--max-delete", "0%"], 25),
        (9, 9, ["--max-delete", "100%", "--allow-empty-source"], 0),
    ],
)
def test_the_deletion_guard(tmp_path: Path, there: int, gone: int, options: list[str], code: int) -> None:
    site, target = files(tmp_path / "site", there), tmp_path / "target"
    assert cli("sync", site, target, "--layout", "packed").code == 0
    for number in range(gone):
        os.unlink(site / f"{number:04}")
    before = shape(target)
    planned = cli("sync", site, target, "-n", *options)
    assert planned.code == code
    assert shape(target) == before
    done = cli("sync", site, target, *options)
    assert done.code == code, done
    assert (shape(target) == before) == (code == 25)
    if code == 25:
        assert f"{gone} of {there + 1:,} entries" in done.error
        assert cli("ls", target).out.count("\n") == there + 1
        accepted = shell(done.error.rpartition(": ")[2])
        assert accepted.code == 0, accepted.err
        assert cli("ls", target).out.count("\n") == there + 1 - gone


def test_the_command_that_accepts_can_be_pasted(tmp_path: Path) -> None:
    """Whatever the run was called with: spaces, quotes, `--`, a limit that was too low."""
    for number, words in enumerate((["--"], ["--max-delete", "1", "--"], ["--exclude", "a b' *", "--max-delete", "1%"])):
        site, target = files(tmp_path / f"the site's {number}", 10), tmp_path / f"tar get{number}"
        assert cli("sync", site, target, "--layout", "packed").code == 0
        for each in range(6):
            os.unlink(site / f"{each:04}")
        done = cli("sync", *words, site, target)
        assert done.code == 25
        accepted = shell(done.error.rpartition(": ")[2])
        assert accepted.code == 0, accepted.err


def test_moves_are_no_deletions(tmp_path: Path) -> None:
    site, target = files(tmp_path / "site", 300), tmp_path / "target"
    assert cli("sync", site, target, "--layout", "packed").code == 0
    (site / "moved").mkdir()
    for number in range(300):
        (site / f"{number:04}").rename(site / "moved" / f"{number:04}")
    done = cli("sync", site, target, "--max-delete", "0")
    assert done.code == 0, done
    assert "300 moved" in done.err


def test_newly_excluded_paths_are_kept_or_counted(tmp_path: Path) -> None:
    site, target = files(tmp_path / "site", 20), tmp_path / "target"
    assert cli("sync", site, target, "--layout", "packed").code == 0
    kept = cli("sync", site, target, "--exclude", "001?")
    assert kept.code == 0
    assert cli("ls", target).out.count("\n") == 21
    refused(3, "sync", site, target, "--exclude", "00*", "--delete-excluded", say=("the rules leave out all of it",))
    refused(25, "sync", site, target, "--exclude", "001?", "--exclude", "000[1-9]", "--delete-excluded", say=("19 of 21",))
    done = cli("sync", site, target, "--exclude", "001?", "--delete-excluded")
    assert done.code == 0
    assert cli("ls", target).out.count("\n") == 11


# -- targets ------------------------------------------------------------------------------------------------------------


def test_a_layout_that_cannot_be(site: Path, tmp_path: Path) -> None:
    refused(2, "sync", site, tmp_path / "target", "--layout", "flat", say=("flat", "--layout packed"))
    refused(2, "sync", site, "memory://trees", "--layout", "tree", say=("memory://trees", "--layout packed"))
    refused(2, "sync", site, tmp_path / "target", "--layout", "packed", "--site", "Not A Name", say=("Not A Name",))
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("verb", [["restore", "OUT"], ["verify"], ["ls"], ["snapshots"], ["cat", "x"], ["sums"]])
def test_a_target_that_is_none(tmp_path: Path, verb: list[str]) -> None:
    write(tmp_path / "folder" / "file", b"no mirror")
    rest = [str(tmp_path / "out") if word == "OUT" else word for word in verb[1:]]
    for place in (tmp_path / "folder", tmp_path / "nowhere"):
        sentence = refused(3, verb[0], place, *rest, say=(str(place),))
        assert "check the path" in sentence or "is it mounted?" in sentence
    done = cli(verb[0], tmp_path / "folder" / "file", *rest)
    assert done.code in (2, 3, 4)
    assert str(tmp_path / "folder" / "file") in done.error
    assert not (tmp_path / "out").exists()


def test_a_target_of_another_site(target: Path, site: Path) -> None:
    refused(2, "sync", site, target, "--site", "blog", say=("'www'", "'blog'"))
    assert cli("sync", site, target, "--site", "www").code == 0
    assert cli("sync", site, target, "--layout", "packed").code == 0
    for verb in (["sync", site, target], ["init", target], ["sync", site, target, "-n"]):
        refused(2, *verb, "--layout", "tree", say=("its layout is 'packed', not 'tree'", "leave out --layout"))


def test_a_place_that_holds_other_things(site: Path, tmp_path: Path) -> None:
    write(tmp_path / "full" / "thesis.doc", b"five years")
    refused(2, "sync", site, tmp_path / "full", "--layout", "packed", say=("thesis.doc", "--adopt"))
    assert os.listdir(tmp_path / "full") == ["thesis.doc"]
    assert cli("sync", site, tmp_path / "full", "--layout", "packed", "--adopt").code == 0
    assert cli("sync", site, tmp_path / "full").code == 0
    assert cli("verify", tmp_path / "full").code == 0
    assert (tmp_path / "full" / "thesis.doc").read_bytes() == b"five years"


def test_a_disk_that_is_not_mounted(target: Path, site: Path, tmp_path: Path) -> None:
    """The folder below the mount point is there, and empty."""
    target.rename(tmp_path / "the disk")
    target.mkdir()
    for words in (["--layout", "packed"], [], ["-n"]):
        refused(3, "sync", site, target, *words, say=(str(target), "mounted", "--new-target"))
    refused(3, "restore", target, tmp_path / "out", say=("mounted",))
    assert os.listdir(target) == []
    target.rmdir()
    refused(3, "sync", site, target, "--layout", "packed", say=(str(target), "mounted"))
    assert not target.exists()
    assert cli("sync", site, target, "--layout", "packed", "--new-target").code == 0
    assert cli("snapshots", target).out.count("\n") == 2


HALVES = {
    "only mirror.json": ("mirror.json", 0, ""),
    "only the log": ("log", 4, "no mirror.json"),
    "only packs": ("packs", 2, "--adopt"),
}


@pytest.mark.parametrize("what", HALVES)
def test_a_half_initialised_target(target: Path, site: Path, tmp_path: Path, what: str) -> None:
    name, code, say = HALVES[what]
    half = tmp_path / "half"
    half.mkdir()
    (shutil.copytree if (target / name).is_dir() else shutil.copy)(target / name, half / name)
    before = shape(half)
    done = cli("sync", site, half, "--layout", "packed", "--site", "www")
    assert done.code == code, done
    if code:
        assert say in done.error
        assert shape(half) == before
        return
    same_site = cli("restore", half, tmp_path / "out")
    assert same_site.code == 0
    same(site, tmp_path / "out")


def test_a_target_without_a_snapshot(target: Path, tmp_path: Path) -> None:
    half = tmp_path / "half"
    half.mkdir()
    shutil.copy(target / "mirror.json", half)
    refused(3, "restore", half, tmp_path / "out", say=("nothing was mirrored", "mirror sync"))
    refused(3, "ls", half, say=("nothing was mirrored",))
    assert cli("verify", half).code == 0
    assert cli("snapshots", half).code == 0
    refused(4, "snapshots", half, "--max-age", "26h", say=("there is none",))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: data.replace(b"packed", b"tarred"),
        lambda data: bytes(len(data)),
        lambda data: b"[" * 5000,
        lambda data: random.Random(1).randbytes(1000),
    ],
)
def test_a_spoilt_mirror_json(target: Path, site: Path, tmp_path: Path, spoil: Any) -> None:
    good = (target / "mirror.json").read_bytes()
    (target / "mirror.json").write_bytes(spoil(good))
    before = shape(target)
    for words in (["sync", site, target], ["restore", target, tmp_path / "out"], ["ls", target]):
        refused(4, *words, say=(f"{target}/mirror.json", "copy of this target"))
    assert shape(target) == before
    (target / "mirror.json").write_bytes(good)
    assert cli("sync", site, target).code == 0


def test_a_newer_format(target: Path, site: Path, tmp_path: Path) -> None:
    from mirror.envelope import sealed_json

    body = json.loads((target / "mirror.json").read_bytes())
    for change in ({"format": 2}, {"features": {"read": ["parity"], "write": [], "prune": []}}, {"ids": "sha512"}):
        (target / "mirror.json").write_bytes(sealed_json(body | change))
        for words in (["sync", site, target], ["restore", target, tmp_path / "out"], ["verify", target]):
            refused(2, *words, say=("newer mirror",))
    (target / "mirror.json").write_bytes(sealed_json(body | {"features": {"read": [], "write": ["parity"], "prune": []}}))
    assert cli("ls", target).code == 0, "whoever only reads need not know how to write"
    write(site / "new", b"new")
    refused(2, "sync", site, target, say=("parity", "newer mirror"))


# -- full disks ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 8 MiB; without the rights to mount one, a limit on the size of files stands in."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = ROOT and not subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", folder], capture_output=True).returncode
    yield folder
    if mounted:
        subprocess.run(["umount", "-l", folder], check=True)


def is_small(folder: Path) -> bool:
    room = os.statvfs(folder)
    return room.f_blocks * room.f_frsize < 16 << 20


def test_a_full_disk_under_the_target(small_disk: Path, tmp_path: Path) -> None:
    site, target = tmp_path / "site", small_disk / "target"
    write(site / "small", b"small")
    assert cli("sync", site, target, "--layout", "packed", "--min-free", "0").code == 0
    write(site / "large.bin", noise(12 << 20))
    if not is_small(small_disk):
        return
    before = truth(target)
    done = cli("sync", site, target, "--min-free", "0")
    assert done.code == 5
    assert "full" in done.error
    assert "make room" in done.error
    assert "12 MiB are to be read and" in done.err
    after = truth(target)
    assert {p for p in before if before[p].content != after[p].content} == set()
    assert cli("ls", target).out == "./\nsmall\n"
    assert cli("verify", target).code == 0
    write(site / "large.bin", noise(1 << 20))
    done = cli("sync", site, target, "--min-free", "0")
    assert done.code == 0, done
    assert cli("restore", target, tmp_path / "out").code == 0
    same(site, tmp_path / "out")
    assert not list((target / ".mirror-tmp").glob("*"))


def test_min_free(site: Path, target: Path, tmp_path: Path) -> None:
    write(site / "new", b"new")
    before = shape(target)
    refused(5, "sync", site, target, "--min-free", "1P", say=("--min-free", str(target)))
    refused(5, "sync", site, target, "--min-free", "100%", say=("--min-free",))
    assert shape(target) == before
    assert cli("sync", site, target, "--min-free", "0%").code == 0


def test_a_full_disk_under_the_restore(small_disk: Path, tmp_path: Path) -> None:
    site, target = tmp_path / "site", tmp_path / "target"
    for number in range(12):
        write(site / f"{number:02}.bin", noise(1_000_000, number))
    assert cli("sync", site, target, "--layout", "packed").code == 0
    if not is_small(small_disk):
        return
    out = small_disk / "out"
    refused(5, "restore", target, out, say=("11 MiB are needed", "free"))
    assert not out.exists()
    refused(5, "restore", target, out, "--in-place", say=(str(out), "full", "--in-place"))
    assert drafts(out) == []
    good = {f"{n:02}.bin".encode(): (site / f"{n:02}.bin").read_bytes() for n in range(12)}
    for path in truth(out):
        assert not path or (out / os.fsdecode(path)).read_bytes() == good[path], "no file is cut"


def test_a_full_disk_cuts_no_file(small_disk: Path, tmp_path: Path) -> None:
    """write(2) says how much it wrote, and with little room that is less than it was given."""
    site, target = tmp_path / "site", tmp_path / "target"
    write(site / "small.bin", noise(1_000_000))
    write(site / "large.bin", noise(3_000_000, 2))
    assert cli("sync", site, target, "--layout", "packed").code == 0
    if not is_small(small_disk):
        return
    for name, room in (("small.bin", 500_000), ("large.bin", 1_500_000)):
        out = small_disk / name
        out.mkdir()
        write(out / name, b"the old content")
        with open(small_disk / "filler", "wb") as filler:
            free = os.statvfs(small_disk)
            filler.write(bytes(free.f_bavail * free.f_frsize - room))
        done = cli("restore", target, out, name, "--in-place")
        assert done.code == 5, done
        assert (out / name).read_bytes() == b"the old content"
        assert drafts(out) == []
        os.unlink(small_disk / "filler")


# -- what this host remembers -------------------------------------------------------------------------------------------


def caches(home: Path) -> Path:
    (found,) = home.glob(".cache/mirror/*/state.sqlite")
    return found


def changed(site: Path) -> None:
    write(site / "index.html", b"<h1>HELLO</h1>\n")
    write(site / "fresh", b"fresh", BEGINNING + 1)


@pytest.mark.parametrize("spoil", ["random", "empty", "text", "middle", "cut", "schema", "folder", "zeros"])
def test_a_spoilt_cache_costs_time_only(site: Path, target: Path, isolated: Path, tmp_path: Path, spoil: str) -> None:
    assert cli("restore", target, tmp_path / "first").code == 0
    for cache in [caches(isolated), *isolated.glob(".cache/mirror/*/*/state.sqlite")]:
        data = cache.read_bytes()
        if spoil == "folder":
            cache.unlink()
            cache.mkdir()
        elif spoil == "schema":
            db = sqlite3.connect(cache)
            db.executescript("DROP TABLE object; DROP TABLE chunk;")
            db.close()
        else:
            middle = data[:8192] + random.Random(3).randbytes(max(len(data) - 8192, 0))
            spoilt = {"random": random.Random(2).randbytes(5000), "empty": b"", "text": b"nothing here", "middle": middle,
                      "cut": data[: len(data) // 2], "zeros": bytes(len(data))}  # fmt: skip
            cache.write_bytes(spoilt[spoil])
    changed(site)
    for words in (["ls", target], ["restore", target, tmp_path / "again"], ["verify", target]):
        done = cli(*words)
        assert done.code == 0, (words, done)
    done = cli("sync", site, target)
    assert done.code == 0, done
    assert cli("sync", site, target).code == 0
    assert cli("restore", target, tmp_path / "out").code == 0
    assert cli("verify", target).code == 0
    write(site / "index.html", (tmp_path / "out" / "index.html").read_bytes())  # without a cache size and time decide: the same
    assert {p: t for p, t in truth(site).items() if p} == {p: t for p, t in truth(tmp_path / "out").items() if p}


def test_the_cache_of_another_target(site: Path, target: Path, isolated: Path, tmp_path: Path) -> None:
    write(tmp_path / "other" / "index.html", b"quite another site")
    own = caches(isolated)
    assert cli("sync", tmp_path / "other", tmp_path / "second", "--layout", "packed").code == 0
    (other,) = {*isolated.glob(".cache/mirror/*/state.sqlite")} - {own}
    shutil.copy(other, own)
    changed(site)
    assert cli("sync", site, target, "-c").code == 0
    assert cli("verify", target).code == 0
    assert cli("restore", target, tmp_path / "out").code == 0
    same(site, tmp_path / "out")


def test_a_cache_that_is_one_night_old(site: Path, target: Path, isolated: Path, tmp_path: Path) -> None:
    shutil.copytree(isolated / ".cache", tmp_path / "old cache")
    changed(site)
    assert cli("sync", site, target).code == 0
    shutil.rmtree(isolated / ".cache")
    shutil.copytree(tmp_path / "old cache", isolated / ".cache")
    write(site / "more", b"more", BEGINNING + 2)
    assert cli("sync", site, target).code == 0
    assert cli("verify", target).code == 0
    assert cli("restore", target, tmp_path / "out").code == 0
    same(site, tmp_path / "out")


def test_a_cache_that_may_not_be_written(shared_folder: Path) -> None:
    """Begun with sudo, gone on without: the cache of this target is root's."""
    site, work = shared_folder / "site", shared_folder / "work"
    write(site / "a", b"a")
    work.mkdir()
    give_to_nobody(work)
    cache = ("--cache-dir", work / "cache")
    assert as_nobody("sync", site, work / "target", "--layout", "packed", *cache).code == 0
    if ROOT:
        for path in (work / "cache").rglob("*"):
            os.chown(path, 0, 0)
            os.chmod(path, 0o700 if path.is_dir() else 0o600)
    write(site / "b", b"b")
    for words in (["sync", site, work / "target"], ["ls", work / "target"], ["restore", work / "target", work / "out"]):
        done = as_nobody(*words, *cache)
        assert done.code == 0, done
        assert not ROOT or words[0] != "sync" or "nothing is kept" in done.err
    assert (work / "out" / "b").read_bytes() == b"b"


def test_cache_folders_that_are_none(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "file", b"no folder")
    target = tmp_path / "target"
    refused(2, "sync", site, target, "--layout", "packed", "--cache-dir", tmp_path / "file", say=("--cache-dir", "not a folder"))
    assert not target.exists()
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    done = cli("sync", site, target, "--layout", "packed")
    assert done.code == 0
    assert "HOME is not set" in done.err
    assert cli("sync", site, target).code == 0
    assert cli("restore", target, tmp_path / "out").code == 0
    same(site, tmp_path / "out")


# -- locks, S3, words ---------------------------------------------------------------------------------------------------


def test_two_runs_at_once_in_earnest(tmp_path: Path) -> None:
    site, target = tmp_path / "site", tmp_path / "target"
    for number in range(30):
        write(site / f"{number}", noise(1_000_000, number))
    assert cli("init", target, "--layout", "packed").code == 0
    runs = [process("sync", site, target, "--workers", 0, "--bwlimit", "20M") for _ in range(3)]
    said = [run.communicate(timeout=60)[1] for run in runs]
    codes = sorted(run.returncode for run in runs)
    assert codes == [0, 11, 11], said
    assert cli("snapshots", target).out.count("\n") == 2
    assert cli("verify", target).code == 0


def test_s3_without_bucket_rights_or_answer(site: Path, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    reach = ("--endpoint-url", s3.endpoint_url, "--region", s3.region)
    refused(3, "sync", site, "s3://no-such-bucket-here/x", "--layout", "packed", *reach, say=("no-such-bucket-here",))
    assert cli("sync", site, s3.url(), "--layout", "packed", *reach).code == 0
    before = s3.objects()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    refused(7, "sync", site, s3.url(), *reach, say=(s3.bucket,))
    refused(7, "restore", s3.url(), site.parent / "out", *reach, say=(s3.bucket,))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.server.reader.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.server.reader.secret_key)
    write(site / "new", b"new")
    refused(7, "sync", site, s3.url(), *reach, say=(s3.bucket,))
    assert cli("restore", s3.url(), site.parent / "out", *reach).code == 0
    assert s3.objects() == before
    assert not (site.parent / "out" / "new").exists()


@pytest.mark.parametrize(
    "words",
    [
        ["sync"], ["sync", "a"], ["sync", "a", "b", "c"], ["snyc", "a", "b"], ["sync", "", "b"], ["sync", "a", ""], ["ls"],
        ["sync", "a", "b", "--max-delete", "many"], ["sync", "a", "b", "--max-delete", "-1"], ["sync", "a", "b", "--min-free", "x"],
        ["sync", "a", "b", "--workers", "-1"], ["sync", "a", "b", "--on-error", "panic"], ["sync", "a", "b", "--nope"],
        ["sync", "a", "b", "--max-duration", "soon"], ["restore", "a", "b", "--overwrite", "maybe"], ["restore", "a"], ["cat", "a"],
        ["diff", "a"], ["sync", "a", "b", "--exclude", "!x"], ["sync", "a", "b", "--filter-from", "no/such/file"],
        ["restore", "a", "s3://b/c"],
    ],
)  # fmt: skip
def test_words_that_make_no_sense(tmp_path: Path, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = cli(*words)
    assert done.code in (2, 3), done
    assert done.error
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("at", ["0", "2", "99999999999999999999", "tag:none", "yesterday", "2001-01-01", "", "-1"])
def test_snapshots_that_are_not_there(target: Path, tmp_path: Path, at: str) -> None:
    done = cli("restore", target, tmp_path / "out", f"--at={at}")
    assert done.code == 2, done
    assert done.error
    assert not (tmp_path / "out").exists()


# -- damage -------------------------------------------------------------------------------------------------------------


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x55
    os.chmod(path, stat.S_IRUSR | stat.S_IWUSR)
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["flip", "empty", "gone", "garbage", "cut"])
@pytest.mark.parametrize("place", ["packs/*/*", "index/*", "manifests/*/*", "log/*", "latest.json"])
def test_damage_is_damage_and_never_more(site: Path, target: Path, tmp_path: Path, isolated: Path, place: str, how: str) -> None:
    """A sentence and a code of the table, from every verb; what is not hurt comes back; a sync never spoils more."""
    shutil.rmtree(isolated / ".cache")
    hurt = sorted(target.glob(place))[-1]
    good = hurt.read_bytes()
    spoilt = {"empty": b"", "garbage": random.Random(5).randbytes(len(good)), "cut": good[: len(good) // 2]}
    _flip(hurt) if how == "flip" else hurt.unlink() if how == "gone" else hurt.write_bytes(spoilt[how])
    before = truth(target)
    for words in (["restore", target, tmp_path / "out"], ["verify", target], ["ls", target], ["snapshots", target]):
        done = cli(*words)
        assert done.code in ((0,) if place == "latest.json" else (0, 3, 4)), (words, done)
        harmless = place == "latest.json" or (how == "gone" and place in ("log/*", "index/*"))
        assert done.code or words[0] != "verify" or harmless, done
    assert truth(target) == before, "reading changes nothing"
    if (tmp_path / "out").exists():
        there, original = truth(tmp_path / "out"), truth(site)
        assert {p for p, t in there.items() if t.kind == "file" and t.content != original[p].content} == set()
        assert drafts(tmp_path / "out") == []
    write(site / "new", b"new")
    settle(site)
    done = cli("sync", site, target)
    assert done.code in (0, 3, 4), done
    after = truth(target)
    kept = {p for p in before if before[p].kind == "file" and before[p].content != after[p].content}
    assert kept <= {b"latest.json"}, "nothing that was there is touched"
    hurt.parent.mkdir(exist_ok=True)
    if place != "latest.json" and not (done.code == 0 and place == "log/*"):
        hurt.write_bytes(good)
        assert cli("verify", target).code == 0, "put right, it is whole"


@pytest.mark.parametrize("how", ["flip", "empty"])
def test_a_damaged_fragment_does_not_keep_the_night_from_being_saved(
    site: Path, target: Path, tmp_path: Path, isolated: Path, how: str
) -> None:
    """What it lists is not known and is stored again; the run says what is wrong and ends with 4, its snapshot made."""
    shutil.rmtree(isolated / ".cache")
    (hurt,) = sorted(target.glob("index/*"))
    _flip(hurt) if how == "flip" else hurt.write_bytes(b"")
    for path in [path for path in site.rglob("*") if path.is_file() and not path.is_symlink()]:
        os.utime(path)  # every file is read again
    done = cli("sync", site, target)
    assert done.code == 4, done
    assert f"index/{hurt.name}" in done.err
    assert "`mirror verify` says what else" in done.err
    hurt.unlink()
    assert cli("restore", target, tmp_path / "out").code == 0, "all of the new snapshot is in what was stored now"
    there, original = truth(tmp_path / "out"), truth(site)
    assert {path: item.content for path, item in there.items()} == {path: item.content for path, item in original.items()}
