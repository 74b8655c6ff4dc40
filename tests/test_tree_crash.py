"""Syncs into a tree that are killed (SIGKILL) before one of their changes of the file system, all the way through: while staging,
before and after the records, between two live files, during deletions, twice in a row. The next sync completes, people see the
site, and every older snapshot comes back byte for byte.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from drive import shape
from killed import run_killed
from mirrors import BEGINNING, noise, settle, tree, write
from trees import Night, all_restore, clean, live, publish, some_of

from mirror.contents import snapshots
from mirror.store import StoreSpec
from mirror.target import TargetSpec
from mirror.verify import verify

POINTS = 36


def sync_killed(site: Path, target: TargetSpec, last: int) -> int:
    """A sync that dies before its `last` change (0: lives); how many changes it made, 0 when it died."""
    words = ("sync", site, target.store.url, "--layout", "tree", "--workers", "0", "--min-free", "0", "-q", "--max-delete", "100%",
             "--cache-dir", target.cache)  # fmt: skip
    return run_killed(last, Path(target.store.url).parent / "count", *words)


@dataclass
class Scene:
    """A tree of two nights, and a site that has changed in every way since. Copied for each death."""

    folder: Path
    nights: dict[int, Night]
    changes: int

    @property
    def site(self) -> Path:
        return self.folder / "site"

    def copy(self, to: Path) -> TargetSpec:
        """The tree (and the memory of this host) as it was, in another folder."""
        subprocess.run(["cp", "-a", self.folder / "live", self.folder / "cache", to], check=True)
        return TargetSpec(StoreSpec(str(to / "live")), to / "cache")


def prepared(folder: Path) -> tuple[Path, TargetSpec, dict[int, Night]]:
    site, target = folder / "site", TargetSpec(StoreSpec(str(folder / "live")), folder / "cache")
    nights = {}
    write(site / "index.html", b"<h1>one</h1>")
    write(site / "style.css", b"a{}" * 500)
    write(site / "big.bin", noise(1_500_000))
    write(site / "moves.png", noise(5_000, 1))
    write(site / "moves too.png", noise(5_000, 2))
    write(site / "goes.txt", b"goes")
    write(site / "becomes a folder", b"file " * 100)
    write(site / "becomes a file" / "x" / "deep", b"deep " * 100)
    write(site / "becomes a file" / "y", b"why " * 100)
    for number in range(6):
        write(site / "pages" / f"{number}.html", b"<p>%d</p>" % number * 50)
    os.link(site / "style.css", site / "pages" / "linked.css")
    (site / "link").symlink_to("index.html")
    settle(site)
    nights[clean(site, target).snapshot] = tree(site)
    write(site / "index.html", b"<h1>two</h1>", BEGINNING + 1)
    (site / "pages" / "5.html").unlink()
    settle(site)
    nights[clean(site, target).snapshot] = tree(site)
    return site, target, nights


def change(site: Path) -> None:
    """Every kind of change at once."""
    write(site / "index.html", b"<h1>333</h1>", BEGINNING + 1)  # as long and as old as before
    write(site / "big.bin", noise(700_000) + b"inserted" + noise(1_500_000)[700_000:], BEGINNING + 3)
    (site / "moves.png").rename(site / "pages" / "moved.png")
    (site / "moves too.png").rename(site / "a moved.png")
    write(site / "moves too.png", noise(5_000, 3), BEGINNING + 3)
    (site / "goes.txt").unlink()
    (site / "becomes a folder").unlink()
    write(site / "becomes a folder" / "inside", b"file " * 100, BEGINNING)  # moved content that makes room
    shutil.rmtree(site / "becomes a file")
    write(site / "becomes a file", b"deep " * 100, BEGINNING)
    write(site / "pages" / "linked.css", b"b{}" * 500, BEGINNING + 3)  # two names, one file
    write(site / "pages" / "new.html", b"<p>new</p>", BEGINNING + 3)
    (site / "pages" / "0.html").unlink()
    os.chmod(site / "pages" / "1.html", 0o600)
    (site / "link").unlink()
    (site / "link").symlink_to("pages/new.html")
    settle(site)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    folder = tmp_path_factory.mktemp("scene")
    site, _, nights = prepared(folder)
    change(site)
    scene = Scene(folder, nights, 0)
    trial = tmp_path_factory.mktemp("trial")
    scene.changes = sync_killed(site, scene.copy(trial), 0)
    assert scene.changes > POINTS
    return scene


def recovers(scene: Scene, target: TargetSpec, folder: Path) -> None:
    """Old snapshots come back now; the next sync completes; then all of them come back."""
    all_restore(target, scene.nights, folder)
    report = publish(scene.site, target)
    assert report.problems == [], report.problems
    assert live(target) == tree(scene.site)
    again = clean(scene.site, target)
    assert again.snapshot == 0, "the second sync after it had something left to do"
    newest = max(int(path.name[:12]) for path in (Path(target.store.url) / ".mirror" / "log").iterdir())
    assert newest > max(scene.nights)
    all_restore(target, scene.nights, folder)
    staged = Path(target.store.url) / ".mirror" / "staged"
    assert [path for path in staged.rglob("*") if path.is_file()] == []
    assert not (Path(target.store.url) / ".mirror" / "aside").exists()


@pytest.mark.parametrize("part", some_of(range(POINTS), 2))
def test_a_sync_that_dies_is_finished_by_the_next(scene: Scene, tmp_path: Path, part: int) -> None:
    last = 1 + part * (scene.changes - 1) // (POINTS - 1)
    target = scene.copy(tmp_path)
    sync_killed(scene.site, target, last)
    recovers(scene, target, tmp_path)


@pytest.mark.parametrize("part", range(8))
def test_dies_twice_in_a_row(scene: Scene, tmp_path: Path, part: int) -> None:
    target = scene.copy(tmp_path)
    sync_killed(scene.site, target, scene.changes * (part + 8) // 17)
    sync_killed(scene.site, target, 3 + 7 * part)
    recovers(scene, target, tmp_path)


def died_while_publishing(scene: Scene, target: TargetSpec) -> Path:
    """A sync that died between two live files; where its drafts are."""
    sync_killed(scene.site, target, scene.changes * 12 // 18)
    root = Path(target.store.url)
    newest = max((root / ".mirror" / "log").iterdir())
    assert json.loads(newest.read_text())["kind"] == "publishing"
    return root / ".mirror" / "staged"


def test_drafts_are_read_before_they_are_believed(scene: Scene, tmp_path: Path) -> None:
    target = scene.copy(tmp_path)
    staged = died_while_publishing(scene, target)
    drafts = sorted(path for path in staged.rglob("*") if path.is_file() and not path.is_symlink())
    assert len(drafts) > 2
    drafts[0].unlink()
    spoilt = bytes(drafts[1].stat().st_size)
    seen = drafts[1].stat()
    drafts[1].write_bytes(spoilt)
    os.utime(drafts[1], ns=(seen.st_mtime_ns, seen.st_mtime_ns))
    report = publish(scene.site, target)
    assert {problem.kind for problem in report.problems} <= {"drift"}
    assert live(target) == tree(scene.site)
    aside = [path for path in (Path(target.store.url) / ".mirror" / "aside").rglob("*") if path.is_file()]
    assert [path.read_bytes() for path in aside] == [spoilt], "nobody's draft may be somebody's work"
    assert clean(scene.site, target).snapshot == 0
    all_restore(target, scene.nights, tmp_path)


def test_content_that_is_nowhere_any_more_closes_the_publishing_incomplete(scene: Scene, tmp_path: Path) -> None:
    target = scene.copy(tmp_path)
    staged = died_while_publishing(scene, target)
    for path in sorted(staged.rglob("*")):
        if path.is_file():
            path.unlink()
    site = tmp_path / "site"
    subprocess.run(["cp", "-a", scene.site, site], check=True)
    for path in [*sorted(site.rglob("*.html")), site / "big.bin"]:
        if path.is_file() and not path.is_symlink():
            write(path, b"changed once more " + path.name.encode(), BEGINNING + 9)
    settle(site)
    report = publish(site, target)
    assert {problem.kind for problem in report.problems} == {"unwritable"}
    assert live(target) == tree(site)
    closed = [line for line in snapshots(target) if line.number not in scene.nights]
    assert [line.complete for line in closed] == [False, True]
    assert clean(site, target).snapshot == 0
    all_restore(target, scene.nights | {closed[-1].number: tree(site)}, tmp_path)


def test_the_next_run_may_be_of_another_host(scene: Scene, tmp_path: Path) -> None:
    """Nothing of what is needed is in the cache."""
    target = scene.copy(tmp_path)
    died_while_publishing(scene, target)
    shutil.rmtree(tmp_path / "cache")
    report = publish(scene.site, target)
    assert report.problems == []
    assert live(target)[b"big.bin"] == tree(scene.site)[b"big.bin"]
    all_restore(target, scene.nights, tmp_path)


def test_reading_and_dry_runs_leave_an_open_publishing_alone(scene: Scene, tmp_path: Path) -> None:
    target = scene.copy(tmp_path)
    died_while_publishing(scene, target)
    root = Path(target.store.url)
    before = shape(root)
    all_restore(target, scene.nights, tmp_path)
    assert publish(scene.site, target, dry_run=True).problems == []
    assert verify(target).problems == []
    assert shape(root) == before
