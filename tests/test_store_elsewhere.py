"""Trees whose store is elsewhere: the live folder alone is enough to find it, nothing else of it is in the live folder, and neither
a disk that is not mounted nor a store that is another's is taken for the right one.

Truth is what the system, or the S3 server, says of the two places.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import S3
from drive import ROOT, Done, cli, shape
from mirrors import BEGINNING, make_site, noise, settle, tree, write
from trees import Walk, all_restore, clean, live, publish, restored, some_of

import mirror
from mirror.envelope import unsealed_json
from mirror.plan import DeletionLimit
from mirror.store import StoreSpec
from mirror.target import TargetSpec
from mirror.verify import verify

EVERYTHING = DeletionLimit(percent=100)


def target_at(folder: Path, store: StoreSpec) -> TargetSpec:
    """A tree in `folder`/live with its store at another place, and a cache beside it."""
    return TargetSpec(StoreSpec(str(folder / "live")), folder / "cache", store)


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> StoreSpec:
    """Where the store is to be."""
    if request.param == "folder":
        return StoreSpec(str(tmp_path / "history"))
    s3: S3 = request.getfixturevalue("s3")
    return s3.spec("history")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return make_site(tmp_path / "site")


@pytest.fixture
def ends(site: Path, tmp_path: Path) -> tuple[Path, Path, Path]:
    """(site, live folder, store) of a tree that was mirrored once; the store a folder."""
    done = cli("sync", site, tmp_path / "live", "--store", tmp_path / "history", "--min-free", "0")
    assert done.code == 0, done
    return site, tmp_path / "live", tmp_path / "history"


def refused(code: int, *words: object, say: tuple[str, ...]) -> Done:
    """A command that must end so, with these parts in its sentence."""
    done = cli(*words)
    assert done.code == code, done
    for part in say:
        assert part in done.error, done
    return done


def members(path: Path) -> dict[str, object]:
    """What a sealed JSON file says, its seal checked."""
    return unsealed_json(path.read_bytes(), str(path))


# -- it is a tree like any other


@pytest.mark.parametrize("seed", range(3))
def test_a_walk_of_edits(tmp_path: Path, store: StoreSpec, seed: int) -> None:
    """Every night is published, and comes back from the live folder alone, which says where the store is."""
    walk, target = Walk(tmp_path / "site", seed), target_at(tmp_path, store)
    alone = replace(target, apart=replace(store, url=""))
    nights = {}
    for night in range(5):
        report = clean(walk.root, target if night % 2 else (alone if night else target), max_delete=EVERYTHING)
        if report.snapshot:
            nights[report.snapshot] = tree(walk.root)
        walk.edit()
    assert len(nights) > 2
    all_restore(alone, nights, tmp_path)
    assert verify(alone).problems == []
    assert set(os.listdir(tmp_path / "live/.mirror")) <= {"store.json", "staged", "aside"}


def test_what_is_where(tmp_path: Path, site: Path, store: StoreSpec, request: pytest.FixtureRequest) -> None:
    target = target_at(tmp_path, store)
    clean(site, target)
    write(site / "big.bin", noise(2_000_000, 7), BEGINNING + 1)
    settle(site)
    report = clean(site, target)
    assert report.bytes_history > 1_000_000
    inside = tmp_path / "live/.mirror"
    assert set(os.listdir(inside)) == {"store.json", "staged"}
    assert [path for path in (inside / "staged").rglob("*") if path.is_file()] == []
    assert ((inside / "store.json").stat().st_mode & 0o777, inside.stat().st_mode & 0o777) == (0o600, 0o700)
    pointer = members(inside / "store.json")
    if store.url.startswith("s3://"):
        s3: S3 = request.getfixturevalue("s3")
        keys = set(s3.objects("history"))
        body = s3.client.get_object(Bucket=s3.bucket, Key=f"{s3.prefix}/history/mirror.json")["Body"].read()
        info = unsealed_json(body, "mirror.json")
    else:
        keys = {str(path.relative_to(store.url)) for path in Path(store.url).rglob("*") if path.is_file()}
        info = members(Path(store.url) / "mirror.json")
    assert {key.partition("/")[0] for key in keys} == {"mirror.json", "latest.json", "log", "manifests", "packs", "index"}
    assert pointer | {"format": 1, "uuid": info["uuid"], "url": store.url} == pointer
    assert info["live"] == {"host": os.uname().nodename, "path": str(tmp_path / "live")}
    assert info["layout"] == "tree"
    assert publish(site, target).requests.get("create", 0) == 0, "an unchanged night writes nothing"


def test_every_verb_finds_the_store(ends: tuple[Path, Path, Path], tmp_path: Path) -> None:
    site, root, _ = ends
    assert "index.html\n" in cli("ls", root).out
    assert cli("cat", root, "index.html").out == "<h1>hello</h1>\n"
    assert cli("sums", root).out.count("index.html") == 1
    assert cli("snapshots", root).out.count("\n") == 2
    assert cli("verify", root, "--against", site).code == 0
    write(site / "new.html", b"new")
    assert "+ new.html\n" in cli("diff", site, root).out
    assert cli("sync", site, root, "--min-free", "0").code == 0
    assert "+ new.html\n" in cli("diff", root, "2", "4").out
    assert cli("restore", root, tmp_path / "out", "--at", "2").code == 0
    assert not (tmp_path / "out/new.html").exists()


def test_named_by_flag_variable_file_and_api(site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = ("--min-free", "0")
    assert cli("sync", site, tmp_path / "a", "--store", tmp_path / "store-a", *free).code == 0
    monkeypatch.setenv("MIRROR_STORE", str(tmp_path / "store-b"))
    assert cli("sync", site, tmp_path / "b", *free).code == 0
    monkeypatch.delenv("MIRROR_STORE")
    text = f"[mirrors.c]\nsource = '{site}'\ntarget = 'c'\nstore = 'store-c'\nmin-free = 0\n"
    (tmp_path / "mirror.toml").write_text(text)
    assert cli("sync", "c", "--config", tmp_path / "mirror.toml", "--new-target").code == 0
    assert "index.html\n" in cli("ls", "c", "--config", tmp_path / "mirror.toml").out
    mirror.sync(site, tmp_path / "d", store=tmp_path / "store-d", min_free=0)
    assert next(mirror.cat(tmp_path / "d", "index.html")) == b"<h1>hello</h1>\n"
    assert cli("init", tmp_path / "e", "--store", tmp_path / "store-e").code == 0
    for name in "abcde":
        assert members(tmp_path / name / ".mirror/store.json")["url"] == str(tmp_path / f"store-{name}")
        assert not (tmp_path / name / ".mirror/mirror.json").exists()


def test_a_dry_run_makes_nothing(site: Path, tmp_path: Path) -> None:
    before = shape(tmp_path)
    done = cli("sync", site, tmp_path / "live", "--store", tmp_path / "history", "-n", "--cache-dir", tmp_path / "cache")
    assert (done.code, "+ index.html\n" in done.out) == (0, True)
    assert shape(tmp_path) == before


def test_a_file_changed_behind_our_back_is_kept_beside_the_live_folder(ends: tuple[Path, Path, Path]) -> None:
    site, root, history = ends
    write(root / "index.html", b"a stranger's", BEGINNING + 9)
    assert cli("verify", root).code == 4
    write(site / "index.html", b"<h1>ours</h1>\n", BEGINNING + 10)
    assert cli("sync", site, root, "--min-free", "0").code == 24
    (kept,) = (root / ".mirror/aside").rglob("index.html")
    assert kept.read_bytes() == b"a stranger's"
    assert not (history / "aside").exists()


def test_a_tree_with_its_store_elsewhere_is_a_source_without_its_pointer(ends: tuple[Path, Path, Path], tmp_path: Path) -> None:
    _, root, _ = ends
    assert cli("sync", root, tmp_path / "copy", "--layout", "packed").code == 0
    assert ".mirror" not in cli("ls", tmp_path / "copy").out


# -- the two belong together, or it is said


def test_the_store_itself_says_what_to_name(ends: tuple[Path, Path, Path]) -> None:
    site, root, history = ends
    for words in (["ls", history], ["sync", site, history], ["verify", history], ["init", history]):
        refused(2, *words, say=("it is the store of a tree", f"name the tree itself: {root} on ", f"--store {history}"))


def test_a_store_that_is_not_mounted(ends: tuple[Path, Path, Path], tmp_path: Path) -> None:
    site, root, history = ends
    before = shape(root)
    history.rename(tmp_path / "the disk")
    for place in ("nothing", "an empty folder"):
        if place != "nothing":
            history.mkdir()
        for words in (["sync", site, root], ["sync", site, root, "--new-target"], ["ls", root], ["init", root]):
            refused(3, *words, say=(f"cannot find the store of {root}", "is it mounted?", "--store"))
        refused(3, "verify", root, say=(str(history) if place == "nothing" else str(root), "is it mounted?"))
    assert (shape(root), os.listdir(history)) == (before, [])
    for words in (["ls", root], ["sync", site, root, "--min-free", "0"]):
        assert cli(*words, "--store", tmp_path / "the disk").code == 0, "it was moved"


def test_another_store_under_that_name(ends: tuple[Path, Path, Path], tmp_path: Path) -> None:
    site, root, history = ends
    assert cli("sync", site, tmp_path / "second", "--store", tmp_path / "second-history", "--min-free", "0").code == 0
    for words in (["sync", site, root], ["ls", root], ["verify", root]):
        refused(2, *words, "--store", tmp_path / "second-history", say=("its store.json names the store with uuid",))
    history.rename(tmp_path / "first")
    (tmp_path / "second-history").rename(history)
    before = shape(tmp_path)
    for words in (["sync", site, root], ["ls", root]):
        refused(2, *words, say=("its store.json names the store with uuid", "is another one", "--store"))
    assert shape(tmp_path) == before


def test_a_store_has_one_tree(ends: tuple[Path, Path, Path], tmp_path: Path) -> None:
    site, _, history = ends
    before = shape(history)
    for more in ([], ["--adopt"], ["--new-target"]):
        refused(2, "sync", site, tmp_path / "other", "--store", history, *more, say=("is the store of the tree", "of its own"))
    assert cli("sync", site, tmp_path / "plain").code == 0
    refused(2, "sync", site, tmp_path / "other", "--store", tmp_path / "plain/.mirror", say=("the store of another tree",))
    assert cli("sync", site, tmp_path / "packed", "--layout", "packed").code == 0
    refused(2, "sync", site, tmp_path / "other", "--store", tmp_path / "packed", say=("its store says layout 'packed'",))
    write(tmp_path / "full/thesis.doc", b"five years")
    refused(
        2, "sync", site, tmp_path / "other", "--store", tmp_path / "full", say=("it holds other things (thesis.doc)", "--adopt")
    )
    assert not (tmp_path / "other").exists()
    assert shape(history) == before


def test_a_copy_of_the_live_folder_does_not_publish(ends: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """The copy names the same store: two folders would be the newest snapshot of one log. It may be read, or take the place of the
    first."""
    site, root, history = ends
    shutil.copytree(root, tmp_path / "copy", symlinks=True)
    write(site / "new", b"new")
    before = shape(tmp_path / "copy"), shape(history)
    refused(2, "sync", site, tmp_path / "copy", say=(f"the tree of that store is {root}, of which this is a copy",))
    assert "index.html" in cli("ls", tmp_path / "copy").out
    assert (shape(tmp_path / "copy"), shape(history)) == before
    shutil.rmtree(tmp_path / "copy")
    root.rename(tmp_path / "moved")
    assert cli("sync", site, tmp_path / "moved", "--min-free", "0").code == 0
    assert (tmp_path / "moved/new").exists()


def test_a_live_folder_that_is_not_mounted(ends: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """With --store in the crontab the store is there: still nothing is published below the mount point."""
    site, root, history = ends
    was = tree(site)
    root.rename(tmp_path / "the disk")
    before = shape(history)
    for place in ("nothing", "an empty folder"):
        if place != "nothing":
            root.mkdir()
        for more in ([], ["-n"], ["--adopt"]):
            words = ("sync", site, root, "--store", history, "--cache-dir", tmp_path / "other", *more)
            refused(3, *words, say=(f"cannot find the tree {root}", "is the live folder mounted?", "--new-target"))
    assert (os.listdir(root), shape(history)) == ([], before)
    assert cli("verify", root, "--store", history).code in (3, 4), "its newest snapshot is not there"
    root.rmdir()  # the disk is lost, and nobody has made a folder in its place
    done = cli("sync", site, root, "--store", history, "--new-target", "--min-free", "0", "--tag", "anew")
    assert (done.code, "note: nothing was there any more: all is published anew" in done.err) == (0, True), done
    assert {path: item for path, item in tree(root).items() if not path.startswith(b".mirror")} == was
    assert cli("verify", root).code == 0
    assert cli("restore", root, tmp_path / "out", "--at", "2").code == 0
    assert tree(tmp_path / "out") == was, "what is live again is content of the older night, too"
    assert cli("sync", site, root, "--store", history, "--min-free", "0").code == 0


def test_a_live_folder_that_was_emptied_is_filled_again(tmp_path: Path, site: Path) -> None:
    """Wherever the store is; and a run that died before it began to is no obstacle."""
    for name, more in (("plain", []), ("apart", ["--store", tmp_path / "history"])):
        words = ["sync", site, tmp_path / name, "--min-free", "0", *more]
        assert cli(*words).code == 0
        for path in [path for path in (tmp_path / name).iterdir() if path.name != ".mirror"]:
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        before = shape(tmp_path / name)
        assert "+ index.html\n" in cli(*words, "-n").out
        assert shape(tmp_path / name) == before
        assert cli(*words).code == 0
        assert (tmp_path / name / "index.html").read_bytes() == b"<h1>hello</h1>\n"
        assert cli("verify", tmp_path / name).code == 0


def test_what_is_left_can_be_read_when_the_live_folder_is_lost(tmp_path: Path, site: Path) -> None:
    """What was displaced is in the store; what only the live folder had is named."""
    target = target_at(tmp_path, StoreSpec(str(tmp_path / "history")))
    first = clean(site, target)
    write(site / "index.html", b"<h1>second</h1>\n", BEGINNING + 1)
    settle(site)
    clean(site, target)
    shutil.rmtree(tmp_path / "live")
    lost = ("--store", tmp_path / "history", "--at", first.snapshot)
    assert cli("cat", tmp_path / "live", "index.html", *lost).out == "<h1>hello</h1>\n"
    assert cli("restore", tmp_path / "live", tmp_path / "out", "index.html", *lost).code == 0
    done = cli("restore", tmp_path / "live", tmp_path / "all", *lost)
    assert (done.code, "big.bin" in done.err) == (4, True), done
    assert not (tmp_path / "live").exists()


def test_a_pointer_that_is_spoilt(ends: tuple[Path, Path, Path]) -> None:
    site, root, history = ends
    pointer = root / ".mirror/store.json"
    data = pointer.read_bytes()
    pointer.chmod(0o600)
    for spoilt in (b"", b"{}", data[:-20], data.replace(b"history", b"mystery"), b"\xff" * 100):
        pointer.write_bytes(spoilt)
        for words in (["sync", site, root], ["ls", root], ["verify", root], ["sync", site, root, "--store", history]):
            refused(4, *words, say=(str(pointer), "remove it, and name the store with --store"))
    pointer.unlink()
    assert cli("ls", root, "--store", history).code == 0
    refused(3, "sync", site, root, "--store", history, say=("--new-target",))
    assert cli("sync", site, root, "--store", history, "--new-target", "--min-free", "0").code == 0
    assert pointer.read_bytes() == data


def test_a_store_beside_a_pointer_is_damage(ends: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """Somebody copied it there: from then on there would be two logs."""
    site, root, history = ends
    shutil.copytree(history, root / ".mirror", dirs_exist_ok=True)
    for words in (["sync", site, root], ["ls", root], ["verify", root]):
        refused(4, *words, say=("it has a store, and store.json names another",))


def test_room_is_asked_for_where_the_store_is_as_well(ends: tuple[Path, Path, Path]) -> None:
    site, root, history = ends
    write(site / "new", b"new")
    refused(5, "sync", site, root, "--min-free", "100000T", say=(f"not enough free space at {history}",))


def test_a_tree_has_its_store_in_one_place(ends: tuple[Path, Path, Path], tmp_path: Path) -> None:
    site, root, history = ends
    assert cli("sync", site, tmp_path / "plain").code == 0
    refused(2, "sync", site, tmp_path / "plain", "--store", history, say=("the store of that tree is in its .mirror/",))
    assert cli("sync", site, tmp_path / "plain", "--store", tmp_path / "plain/.mirror").code == 0
    assert cli("sync", site, root, "--store", f"{history}/").code == 0
    refused(2, "sync", site, root, "--layout", "packed", say=("packed",))


# -- where it may not be


def test_ends_that_overlap(site: Path, tmp_path: Path, ends: tuple[Path, Path, Path]) -> None:
    _, root, history = ends
    new = tmp_path / "new"
    (tmp_path / "link").symlink_to(site)
    before = shape(tmp_path)
    for store in (site / "history", site, tmp_path / "link/history"):
        refused(2, "sync", site, new, "--store", store, "--cache-dir", tmp_path / "c", say=("cannot mirror", str(site)))
    refused(2, "sync", site / "pages", new, "--store", site, say=("is inside the target",))
    for store in (new / "history", new / ".mirror/history", tmp_path):
        refused(2, "sync", site, new, "--store", store, say=("outside the live folder",) if store != tmp_path else ("",))
    refused(2, "sync", history, root, say=("it is the target itself",))
    refused(2, "sync", history / "log", root, say=("it is inside the target",))
    refused(2, "restore", root, history / "out", say=("cannot restore into", "it is inside the target"))
    refused(2, "diff", history, root, say=("it is the target itself",))
    refused(2, "verify", root, "--against", history, say=("it is the target itself",))
    assert shape(tmp_path) == before


def test_ends_that_overlap_on_s3(s3: S3, tmp_path: Path) -> None:
    s3.client.put_object(Bucket=s3.bucket, Key=f"{s3.prefix}/www/index.html", Body=b"page")
    reach = ("--endpoint-url", s3.endpoint_url, "--region", s3.region)
    for store in ("www", "www/history"):
        refused(2, "sync", s3.url("www"), tmp_path / "live", "--store", s3.url(store), *reach, say=("cannot mirror",))
    assert set(s3.objects()) == {"www/index.html"}
    assert not (tmp_path / "live").exists()
    assert cli("sync", s3.url("www"), tmp_path / "live", "--store", s3.url("www-history"), *reach).code == 0


@pytest.mark.parametrize(
    ("words", "say"),
    [
        (["--store", "ftp://host/x"], "stores of this kind are not known"),
        (["--store", "s3://key:secret@bucket/x"], "there are credentials in the URL"),
        (["--store", "history", "--layout", "packed"], "a packed target is its store"),
    ],
)
def test_wrong_values(site: Path, tmp_path: Path, words: list[str], say: str) -> None:
    done = refused(2, "sync", site, tmp_path / "live", *words, say=(say,))
    assert "secret" not in done.err
    assert not (tmp_path / "live").exists()


def test_a_packed_target_has_no_store_elsewhere(site: Path, tmp_path: Path) -> None:
    assert cli("sync", site, tmp_path / "packed", "--layout", "packed").code == 0
    refused(2, "sync", site, tmp_path / "packed", "--store", tmp_path / "x", say=("a packed target is its store",))
    refused(2, "sync", site, "memory://elsewhere", "--store", tmp_path / "x", say=("a tree in a local folder",))
    assert cli("sync", site, tmp_path / "packed", "--store", tmp_path / "packed").code == 0
    assert not (tmp_path / "x").exists()


def test_a_store_below_a_folder_that_is_not_there(site: Path, tmp_path: Path) -> None:
    refused(3, "sync", site, tmp_path / "live", "--store", tmp_path / "no/history", say=("is it mounted?",))
    assert cli("ls", tmp_path / "live").code == 3
    (tmp_path / "no").mkdir()
    assert cli("sync", site, tmp_path / "live", "--store", tmp_path / "no/history").code == 0


# -- killed on the way


def killed(step: int, tmp_path: Path, *words: object) -> int:
    """Run a command that kills itself before a step of its; its return code, -9 when it came to that."""
    command = [sys.executable, ROOT / "tests/killed.py", str(step), tmp_path / "count", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, timeout=120, check=False, env=environment).returncode


@pytest.mark.parametrize("step", some_of(range(1, 26), 4))
def test_killed_while_the_two_are_made(tmp_path: Path, step: int) -> None:
    """Whatever of live folder, store and pointer was there: the same command goes on, and what comes of it is whole."""
    site = tmp_path / "site"
    write(site / "index.html", b"page")
    settle(site)
    root, history = tmp_path / "live", tmp_path / "history"
    words = ("sync", site, root, "--store", history, "--workers", "0", "--min-free", "0", "--cache-dir", tmp_path / "cache", "-q")
    assert killed(step, tmp_path, *words) == -9, "the making has more steps than these"
    done = cli(*words)
    assert done.code == 0, done
    assert (root / "index.html").read_bytes() == b"page"
    assert set(os.listdir(root / ".mirror")) - {".mirror-tmp"} == {"store.json", "staged"}
    assert cli("verify", root).code == 0
    write(site / "index.html", b"other", BEGINNING + 1)
    assert cli("sync", site, root, "--min-free", "0").code == 0
    assert cli("cat", root, "index.html", "--at", "2").out in ("page", "")


@pytest.mark.parametrize("every", [15, pytest.param(5, marks=pytest.mark.long)])
def test_killed_while_an_emptied_live_folder_is_filled(tmp_path: Path, every: int) -> None:
    site, root = tmp_path / "site", tmp_path / "live"
    for name in ("a.css", "b.bin", "index.html"):
        write(site / name, noise(5_000, len(name)))
    settle(site)
    target = target_at(tmp_path, StoreSpec(str(tmp_path / "history")))
    first = clean(site, target)
    was = tree(site)
    words = ("sync", site, root, "--workers", "0", "--min-free", "0", "--cache-dir", tmp_path / "cache", "-q")
    step, killings = 1, 0
    while True:
        for path in site.iterdir():
            (root / path.name).unlink(missing_ok=True)
        ended = killed(step, tmp_path, *words)
        assert cli(*words).code == 0
        assert live(target) == tree(site)
        assert restored(target, first.snapshot, tmp_path / "out") == was
        if ended != -9:
            break
        step, killings = step + every, killings + 1
    assert killings * every > 25


@pytest.mark.parametrize("every", [16, pytest.param(4, marks=pytest.mark.long)])
def test_killed_while_a_night_is_published(tmp_path: Path, every: int) -> None:
    """Every so many-th step of a night with displacement, deletion and a move, each followed by a run that finishes it."""
    site = tmp_path / "site"
    for name in ("changes", "goes", "moves"):
        write(site / name, noise(30_000, len(name)))
    settle(site)
    target = target_at(tmp_path, StoreSpec(str(tmp_path / "history")))
    first = clean(site, target)
    was = tree(site)
    write(site / "changes", noise(30_000, 50), BEGINNING + 1)
    (site / "goes").unlink()
    (site / "moves").rename(site / "moved")
    settle(site)
    for name in ("live", "history", "cache"):
        shutil.copytree(tmp_path / name, tmp_path / f"{name}.before", symlinks=True)
    words = ("sync", site, tmp_path / "live", "--workers", "0", "--min-free", "0", "--cache-dir", tmp_path / "cache", "-q",
             "--max-delete", "100%")  # fmt: skip
    step, killings = 1, 0
    while killed(step, tmp_path, *words) == -9:
        killings += 1
        assert cli(*words).code == 0
        assert live(target) == tree(site)
        assert restored(target, first.snapshot, tmp_path / "out") == was
        for name in ("live", "history", "cache"):
            shutil.rmtree(tmp_path / name)
            shutil.copytree(tmp_path / f"{name}.before", tmp_path / name, symlinks=True)
        step += every
    assert killings * every > 32


def test_what_only_the_live_folder_had_is_named(ends: tuple[Path, Path, Path], tmp_path: Path) -> None:
    """In the words of an operator: no index is at fault."""
    site, root, _ = ends
    lost = next(path for path in sorted(site.rglob("*")) if path.is_file() and not path.is_symlink() and path.stat().st_size)
    (root / lost.relative_to(site)).unlink()
    done = cli("restore", root, tmp_path / "out")
    said = f"! {lost.relative_to(site)}: neither the packs nor the live files have all of it any more"
    assert (done.code, said in done.err) == (4, True), done.err
