"""Syncs into a tree with `--delete-grace`, `--no-history` and `--order` that are killed (SIGKILL), and what the next run makes of
it: it does what the dead one was asked for, though it is asked for something else.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from killed import run_killed
from mirrors import BEGINNING, noise, settle, tree, write
from trees import Night, all_restore, differing, live, publish, some_of

from mirror.contents import snapshots
from mirror.publishing import PublishOptions
from mirror.store import StoreSpec
from mirror.target import TargetSpec
from mirror.verify import verify

POINTS = 14


def sync_killed(site: Path, target: TargetSpec, last: int, words: tuple[str, ...]) -> int:
    """A sync with these options that dies before its `last` change (0: lives); how many changes it made, 0 when it died."""
    command = ("sync", site, target.store.url, "--workers", "0", "--min-free", "0", "-q", "--max-delete", "100%",
               "--cache-dir", target.cache, *words)  # fmt: skip
    return run_killed(last, Path(target.store.url).parent / "count", *command)


@dataclass
class Scene:
    """A tree of two nights in which something lingers, and a site that has changed since. Copied for each death."""

    folder: Path
    nights: dict[int, Night]
    lingering: Night

    @property
    def site(self) -> Path:
        return self.folder / "site"

    def copy(self, to: Path) -> TargetSpec:
        subprocess.run(["cp", "-a", self.folder / "live", self.folder / "cache", to], check=True)
        return TargetSpec(StoreSpec(str(to / "live")), to / "cache")


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    folder = tmp_path_factory.mktemp("scene")
    site, target, nights = folder / "site", TargetSpec(StoreSpec(str(folder / "live")), folder / "cache"), {}
    write(site / "index.html", b"<h1>one</h1>")
    for name in ("due.css", "comes back.css", "comes back else.css", "going/deep/asset.js", "other.css", "stays.bin"):
        write(site / name, name.encode() * 100)
    (site / "linked.css").hardlink_to(site / "stays.bin")
    write(site / "page.html", b"a page")
    for number in range(10):
        write(site / "same" / f"{number}.txt", b"stays as it is")
    settle(site)
    nights[publish(site, target, publish=PublishOptions(grace=2)).snapshot] = tree(site)
    first = tree(site)
    for name in ("due.css", "comes back.css", "comes back else.css"):
        (site / name).unlink()
    settle(site)
    nights[publish(site, target, publish=PublishOptions(grace=2)).snapshot] = tree(site)
    write(site / "comes back.css", b"comes back.css" * 100)
    write(site / "comes back else.css", noise(3000), BEGINNING + 5)
    write(site / "index.html", b"<h1>three</h1>", BEGINNING + 5)
    shutil.rmtree(site / "going")
    for name in ("linked.css", "page.html", "other.css"):
        (site / name).unlink()
    settle(site)
    lingers = (b"going/deep/asset.js", b"linked.css", b"other.css")
    return Scene(folder, nights, {path: first[path]._replace(group="") for path in lingers})  # a copy of its own


def newest_kind(target: TargetSpec) -> str:
    kind: str = json.loads(max((Path(target.store.url) / ".mirror" / "log").iterdir()).read_text())["kind"]
    return kind


@pytest.mark.parametrize("part", some_of(range(POINTS), 3))
def test_what_lingers_lingers_after_a_death(scene: Scene, tmp_path: Path, part: int) -> None:
    """The dead run's grace is 1: what left before it is due, what leaves now stays. The next runs say nothing of grace, or the
    same; if the publishing was open, they find what is to stand in its record."""
    trial = tmp_path / "trial"
    trial.mkdir()
    changes = sync_killed(scene.site, scene.copy(trial), 0, ("--delete-grace", "1"))
    target = scene.copy(tmp_path)
    sync_killed(scene.site, target, 1 + part * (changes - 1) // (POINTS - 1), ("--delete-grace", "1"))
    if part % 3 == 2:
        sync_killed(scene.site, target, 2 + 3 * part, ("--delete-grace", "1"))
    all_restore(target, scene.nights, tmp_path)
    assert verify(target).problems == []
    report = publish(scene.site, target, publish=PublishOptions(grace=1))
    assert report.problems == [], report.problems
    extra = {path: item for path, item in live(target).items() if path not in tree(scene.site) and not path.endswith(b"/")}
    assert extra == scene.lingering
    assert not {path for path, item in tree(scene.site).items() if live(target).get(path) != item}
    assert verify(target).problems == []
    nights = scene.nights | {snapshots(target)[-1].number: tree(scene.site)}
    assert len(snapshots(target)) == 3
    all_restore(target, nights, tmp_path)
    staged = Path(target.store.url) / ".mirror" / "staged"
    assert [path for path in staged.rglob("*") if path.is_file()] == []
    report = publish(scene.site, target, heartbeat=True)
    assert report.problems == []
    assert not (wrong := differing(live(target), tree(scene.site))), wrong
    assert not (Path(target.store.url) / ".mirror" / "aside").exists()
    all_restore(target, nights, tmp_path)


@pytest.mark.parametrize("part", some_of(range(POINTS), 3))
def test_a_run_without_history_that_died_is_finished_without(scene: Scene, tmp_path: Path, part: int) -> None:
    words = ("--no-history", "--order", "*.html", "--order", "...")
    trial = tmp_path / "trial"
    trial.mkdir()
    changes = sync_killed(scene.site, scene.copy(trial), 0, words)
    target = scene.copy(tmp_path)
    sync_killed(scene.site, target, 1 + part * (changes - 1) // (POINTS - 1), words)
    was_open = newest_kind(target) in ("publishing", "snapshot", "done") and _has_begun(target)
    promised = {line.number: night for line in snapshots(target) if (night := scene.nights.get(line.number))}
    if not was_open:
        assert promised == scene.nights
        all_restore(target, scene.nights, tmp_path)
    elif newest_kind(target) == "publishing":
        assert list(promised) == [max(scene.nights)]
    else:
        assert promised == {}
    report = publish(scene.site, target)
    assert report.problems == [], report.problems
    assert not (wrong := differing(live(target), tree(scene.site))), wrong
    left = [line.number for line in snapshots(target)]
    assert len(left) == (1 if was_open else 3)
    nights = {number: night for number, night in scene.nights.items() if number in left} | {left[-1]: tree(scene.site)}
    all_restore(target, nights, tmp_path)
    assert verify(target).problems == []
    assert publish(scene.site, target).snapshot == 0


def _has_begun(target: TargetSpec) -> bool:
    """Whether the dead run appended its publishing."""
    records = [json.loads(path.read_text()) for path in sorted((Path(target.store.url) / ".mirror" / "log").iterdir())]
    return any(record.get("history") is False for record in records)


def test_an_order_is_kept_by_who_takes_over(scene: Scene, tmp_path: Path) -> None:
    """Pages first, as the record says: the run that takes over has the usual order in mind."""
    site = tmp_path / "site"
    subprocess.run(["cp", "-a", scene.site, site], check=True)
    for number in range(12):
        write(site / f"{number}.html", b"page %d" % number)
        write(site / f"{number}.css", b"asset %d" % number)
    settle(site)
    target = scene.copy(tmp_path)
    last, words = 0, ("--order", "*.html")
    trial = tmp_path / "trial"
    trial.mkdir()
    for last in range(sync_killed(site, scene.copy(trial), 0, words), 0, -4):  # from the end, to the middle of the pages
        shutil.rmtree(target.store.url)
        shutil.rmtree(str(target.cache))
        target = scene.copy(tmp_path)
        sync_killed(site, target, last, words)
        there = {path.suffix for path in Path(target.store.url).glob("[0-9]*.*")}
        if newest_kind(target) == "publishing" and there == {".html"}:
            break
    else:
        pytest.fail("it never died between two pages")
    found: list[str] = []

    def profile(frame: object, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_qualname == "LiveTree.put":  # type: ignore[attr-defined]
            found.append(frame.f_locals["path"].decode())  # type: ignore[attr-defined]

    sys.setprofile(profile)
    try:
        assert publish(site, target).problems == []
    finally:
        sys.setprofile(None)
    kinds = [os.path.splitext(name)[1] for name in found]
    assert ".css" in kinds
    assert ".html" not in kinds[kinds.index(".css") :], found
