"""What a sync says of its cost: history and free space in each report, and with `-n` what history and requests it would take."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from drive import cli
from mirrors import BEGINNING, in_memory, mirror, noise, settle, target_in, write
from trees import publish

from mirror.cost import Displaced, Estimate, Ground
from mirror.manifest import ChangeLine
from mirror.plan import DeletionLimit
from mirror.publishing import PublishOptions
from mirror.target import TargetSpec


@pytest.fixture
def target(tmp_path: Path) -> TargetSpec:
    return target_in(tmp_path, "live")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    site = tmp_path / "site"
    for number in range(20):
        write(site / f"{number}.css", noise(2000, number))
    write(site / "index.html", b"<h1>one</h1>")
    settle(site)
    return site


def packs(target: TargetSpec) -> int:
    return sum(path.stat().st_size for path in (Path(target.store.url) / ".mirror" / "packs").rglob("*") if path.is_file())


def planned(site: Path, target: TargetSpec, **options: Any) -> int:
    report = publish(site, target, dry_run=True, publish=PublishOptions(**options), max_delete=DeletionLimit(percent=100))
    assert report.bytes_history == 0
    return report.bytes_displaced


def test_the_report_of_each_sync_says_what_history_takes_and_what_is_free(site: Path, target: TargetSpec) -> None:
    first = publish(site, target)
    assert (first.bytes_history, first.bytes_history_total) == (0, 0)
    write(site / "0.css", noise(3000, 100), BEGINNING + 1)
    settle(site)
    second = publish(site, target)
    assert second.bytes_history == second.bytes_history_total == packs(target) > 2000
    write(site / "1.css", noise(3000, 101), BEGINNING + 1)
    settle(site)
    third = publish(site, target)
    assert third.bytes_history_total == packs(target) == second.bytes_history + third.bytes_history
    same = publish(site, target)
    assert (same.snapshot, same.bytes_history, same.bytes_history_total) == (0, 0, packs(target))
    room = os.statvfs(site)
    assert same.bytes_free is not None
    assert 0 < same.bytes_free <= room.f_blocks * room.f_frsize
    assert target.cache is not None
    shutil.rmtree(target.cache)
    assert publish(site, target).bytes_history_total is None, "this host does not know, and an unchanged run does not look"


def test_a_dry_run_says_what_history_would_take(site: Path, target: TargetSpec) -> None:
    assert planned(site, target) == 0
    publish(site, target)
    assert planned(site, target) == 0
    write(site / "0.css", noise(3000, 100), BEGINNING + 1)
    (site / "1.css").unlink()
    (site / "2.css").rename(site / "moved.css")
    (site / "3.css").chmod(0o600)
    write(site / "new.css", noise(9000, 200))
    settle(site)
    assert planned(site, target) == 2 * 2000, "what was overwritten and what was deleted; what moved or is described anew stays"
    assert planned(site, target, grace=1) == 2000 + 0, "what lingers is not displaced yet"
    assert planned(site, target, never_delete=True) == 2000
    assert planned(site, target, history=False) == 0
    report = publish(site, target)
    assert 2 * 2000 < report.bytes_history < 2 * 2000 + 1000, "noise does not shrink"
    write(site / "0.css", noise(2000, 0), BEGINNING + 2)  # as it was: what stands there is in no pack, what comes is
    settle(site)
    assert planned(site, target) == 3000


def test_what_is_due_is_counted_and_what_packs_have_is_not(site: Path, target: TargetSpec) -> None:
    publish(site, target)
    (site / "1.css").unlink()
    settle(site)
    publish(site, target, publish=PublishOptions(grace=1))
    write(site / "new.html", b"new")
    settle(site)
    assert planned(site, target, grace=1) == planned(site, target) == 2000
    assert planned(site, target, grace=2) == 0
    publish(site, target)
    write(site / "1.css", noise(2000, 1), BEGINNING + 1)
    settle(site)
    publish(site, target)
    (site / "1.css").unlink()
    settle(site)
    assert planned(site, target) == 0, "a pack has it from the first time"


def test_the_requests_of_a_packed_target_are_about_those_of_the_plan(site: Path) -> None:
    """Held against what the run then really does."""
    target, _ = in_memory("cost")
    options: dict[str, Any] = {"workers": 0, "max_delete": DeletionLimit(percent=100)}
    for edit in (lambda: None, lambda: write(site / "0.css", noise(3000, 100), BEGINNING + 1), lambda: (site / "1.css").unlink()):
        edit()
        settle(site)
        plan = mirror(site, target, dry_run=True, **options)
        done = mirror(site, target, **options)
        puts = done.requests["create"] + done.requests["hint"]
        assert plan.requests_planned == {"put": puts}
    assert mirror(site, target, dry_run=True, **options).requests_planned == {}


def test_many_segments_and_packs_in_the_plan(tmp_path: Path) -> None:
    target, _ = in_memory("cost of many")
    site = tmp_path / "site"
    for number in range(6000):
        write(site / f"{number * 7919 % 6000:05}", b"%d" % number)
    write(site / "large", noise(30 << 20))
    settle(site)
    plan, done = mirror(site, target, dry_run=True), mirror(site, target)
    puts = done.requests["create"] + done.requests["hint"]
    assert 0.5 * puts <= plan.requests_planned["put"] <= 1.5 * puts
    for number in (0, 3000, 5999):
        write(site / f"{number:05}", b"changed", BEGINNING + 1)
    settle(site)
    plan, done = mirror(site, target, dry_run=True), mirror(site, target)
    assert abs(plan.requests_planned["put"] - done.requests["create"] - done.requests["hint"]) <= 1


def test_requests_of_a_tree_on_an_object_service() -> None:
    """Values in, values out: a first sync looks at nothing, and a large object goes in parts."""
    ground = Ground(None, None, None)  # type: ignore[arg-type]
    with Estimate() as estimate:
        for number in range(10):
            estimate.add(ChangeLine("+", b"%d.css" % number), 1000)
        estimate.add(ChangeLine("+", b"folder/"), 0)
        estimate.add(ChangeLine("+", b"large"), 80 << 20)
        found = estimate.requests(ground, Displaced(), tree=True)
    # files, parts and both ends of the large one; a segment and its root; four records and the hint; mirror.json
    assert found == {"put": 10 + 12 + 2 + 5 + 2}
    with Estimate() as estimate:
        assert estimate.requests(ground, Displaced(), tree=True) == {}


def test_a_folder_charges_nothing(site: Path, target: TargetSpec) -> None:
    assert publish(site, target, dry_run=True).requests_planned == {}


def test_what_people_and_programs_are_told(site: Path, target: TargetSpec) -> None:
    words = ("sync", site, target.store.url, "--layout", "tree", "--min-free", "0", "--cache-dir", target.cache)
    cli(*words)
    write(site / "0.css", noise(3000, 100), BEGINNING + 1)
    settle(site)
    told = cli(*words, "-n").err
    assert re.search(r"^history: 2\.0 KiB more before compression, 0 B so far; .* are free$", told, re.M), told
    plan = json.loads(cli(*words, "-n", "--json").out.splitlines()[-1])
    assert (plan["bytes_displaced"], plan["bytes_history_total"], plan["requests_planned"]) == (2000, 0, {})
    assert plan["bytes_free"] > 0
    told = cli(*words).err
    assert re.search(r"^history: 2\.\d KiB more, 2\.\d KiB in all; .* are free$", told, re.M), told
    told = cli(*words).err
    assert re.search(r"^history: 0 B more, 2\.\d KiB in all; .* are free$", told, re.M), told
