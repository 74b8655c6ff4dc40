"""Runs that meet at the log: another one acts between a sync's first look at the head and its append."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from byhand import assert_told, doom, dooms_of, forget, head_of, needs, prune
from mirrors import BEGINNING, Item, make_site, noise, settle, tree, write

from mirror import log
from mirror.envelope import sealed_json
from mirror.errors import DamageError, InTheWayError
from mirror.keys import ObjectName, record_key, record_number
from mirror.making import Making
from mirror.restore import RestoreOptions, restore
from mirror.site import SiteSpec
from mirror.store import Data, StoreSpec
from mirror.store.memory import MemoryStore
from mirror.sync import SyncOptions, SyncReport, sync
from mirror.target import TargetSpec


class Stage(MemoryStore):
    """A store in memory where another run acts at a chosen moment: each of `acts` once, just before somebody creates a record.
    `puts`: what was created, in order."""

    def __init__(self, name: str = "") -> None:
        super().__init__(name)
        self.acts: list[Callable[[], object]] = []
        self.puts: list[str] = []

    def create(self, key: str, data: Data) -> bool:
        if record_number(key) is not None and self.acts:
            act, *later = self.acts
            self.acts = []  # for what the act itself creates
            act()
            self.acts = later
        made = super().create(key, data)
        if made:
            self.puts.append(key)
        return made


class Scene:
    """A site that is mirrored into a staged store, from here and from elsewhere."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"memory://{folder}"
        store = Stage.named(str(folder))
        assert isinstance(store, Stage)
        self.store = store
        self.site = make_site(folder / "site")
        self.nights: dict[int, dict[bytes, Item]] = {}
        assert self.here().snapshot == 1

    def spec(self, host: str) -> TargetSpec:
        return TargetSpec(StoreSpec(self.url), self.folder / f"cache-{host}")

    def run(self, site: Path, host: str, **options: Any) -> SyncReport:
        options = {"making": Making("packed", "www"), "workers": 0} | options
        report = sync(SiteSpec(str(site)), self.spec(host), SyncOptions(**options))
        assert report.problems == []
        if report.snapshot:
            self.nights[report.snapshot] = tree(site)
        return report

    def here(self, **options: Any) -> SyncReport:
        return self.run(self.site, "here", **options)

    def change(self, number: int = 1) -> None:
        """Something new, big enough for a pack of its own content."""
        write(self.site / f"new-{number}", noise(200_000, 100 + number))
        write(self.site / "big.bin", noise(2_000_000, 200 + number), BEGINNING + number)
        settle(self.site)

    def elsewhere(self) -> Callable[[], SyncReport]:
        """The same source synced by a run that does not share this host's lock or cache: another container, say."""
        return lambda: self.run(self.site, "elsewhere")

    def all_restores(self, *but: int) -> None:
        live = list(head_of(self.store).live)
        assert live == sorted(self.nights.keys() - set(but))
        doomed = dooms_of(self.store)
        assert not any(doomed(key) for key in needs(self.store).objects)
        assert_told(self.store)
        for number in live:
            for host in ("here", "nobody"):
                out = self.folder / "out"
                assert restore(self.spec(host), str(out), RestoreOptions(at=str(number), workers=0)).exit_code == 0
                assert tree(out) == self.nights[number]
                shutil.rmtree(out)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    scene = Scene(tmp_path)
    yield scene
    scene.store.objects.clear()


def test_the_loser_of_a_race_for_the_same_source_finds_nothing_left_to_do(scene: Scene) -> None:
    scene.change()
    scene.store.acts = [scene.elsewhere()]
    report = scene.here()
    assert (report.attempts, report.snapshot, report.same) == (2, 0, report.entries)
    assert head_of(scene.store).number == 2
    scene.all_restores()


def test_the_loser_of_a_race_puts_what_changed_since_on_top(scene: Scene) -> None:
    scene.change()

    def other_then_edit() -> None:
        scene.elsewhere()()
        write(scene.site / "later", b"later")
        settle(scene.site)

    scene.store.acts = [other_then_edit]
    report = scene.here()
    assert (report.attempts, report.snapshot, report.added, report.parent) == (2, 3, 1, 2)
    assert log.read_record(scene.store, 3).body["parents"] == [2]
    scene.all_restores()


def test_a_tagged_run_makes_its_snapshot_though_the_other_was_first(scene: Scene) -> None:
    scene.change()
    scene.store.acts = [scene.elsewhere()]
    report = scene.here(tags=("release",))
    assert (report.attempts, report.snapshot) == (2, 3)
    assert list(head_of(scene.store).live) == [1, 2, 3]
    scene.all_restores()


def test_a_race_for_the_very_first_snapshot(tmp_path: Path) -> None:
    store = Stage.named(str(tmp_path))
    assert isinstance(store, Stage)
    site = make_site(tmp_path / "site")
    spec = TargetSpec(StoreSpec(f"memory://{tmp_path}"))
    options = SyncOptions(making=Making("packed", "www"), workers=0)
    store.acts = [lambda: sync(SiteSpec(str(site)), spec, options)]
    report = sync(SiteSpec(str(site)), spec, options)
    assert (report.attempts, report.snapshot) == (2, 0)
    assert list(head_of(store).live) == [1]
    packs = [key for key in store.objects if key.startswith("packs/")]
    assert len(packs) == len({key.partition(".")[0] for key in packs})
    store.objects.clear()


def test_another_source_in_the_same_target_is_in_the_way(scene: Scene) -> None:
    other = make_site(scene.folder / "other")
    write(other / "theirs", b"theirs")
    scene.change()

    def theirs() -> None:
        scene.run(other, "elsewhere")

    scene.store.acts = [theirs]
    with pytest.raises(InTheWayError, match=r"another source .*other.* was mirrored into it meanwhile, as snapshot 2") as caught:
        scene.here()
    assert caught.value.exit_code == 11
    assert head_of(scene.store).number == 2
    scene.all_restores()


def test_another_source_is_in_the_way_also_behind_other_records(scene: Scene) -> None:
    """Every record since is looked at, not only the one that won."""
    other = make_site(scene.folder / "other")
    write(other / "theirs", b"theirs")
    scene.change()

    def theirs() -> None:
        forget(scene.store, [])
        scene.run(other, "elsewhere")
        forget(scene.store, [])

    scene.store.acts = [theirs]
    with pytest.raises(InTheWayError):
        scene.here()


def test_a_forget_in_between_stays_forgotten(scene: Scene) -> None:
    scene.change(1)
    scene.here()
    scene.change(2)
    scene.store.acts = [lambda: forget(scene.store, [1])]
    before = len(scene.store.puts)
    report = scene.here()
    assert (report.attempts, report.snapshot) == (1, 4)
    assert list(head_of(scene.store).live) == [2, 4]
    puts = scene.store.puts[before:]
    assert len(puts) == len(set(puts)), "nothing was stored twice"
    scene.all_restores(1)


def test_a_forgotten_parent_means_a_new_attempt(scene: Scene) -> None:
    """While the parent lives, no prune can have doomed what it needs; after that, nothing is sure."""
    scene.change(1)
    scene.here()
    scene.change(2)

    def forget_and_prune() -> None:
        forget(scene.store, [2])
        prune(scene.store)

    scene.store.acts = [forget_and_prune]
    report = scene.here()
    assert (report.attempts, report.snapshot, report.parent) == (2, 5, 1)
    assert list(head_of(scene.store).live) == [1, 5]
    scene.all_restores(2)


def test_all_snapshots_forgotten_and_pruned_means_a_new_start(scene: Scene) -> None:
    scene.change(1)

    def forget_and_prune() -> None:
        forget(scene.store, [1])
        prune(scene.store)

    scene.store.acts = [forget_and_prune]
    report = scene.here()
    assert (report.attempts, report.snapshot, report.parent) == (2, 4, 0)
    assert log.read_record(scene.store, 4).body["parents"] == []
    scene.all_restores(1)


@pytest.mark.parametrize("gone", [False, True], ids=["objects stay", "objects go"])
def test_a_prune_that_dooms_what_this_run_wrote(scene: Scene, gone: bool) -> None:
    """It sees packs that no snapshot names, and dooms them; the run stores them again under the prune's number."""
    scene.change()
    mine: list[str] = []

    def prunes() -> None:
        mine.extend(prune(scene.store, keep_objects=not gone))

    scene.store.acts = [prunes]
    report = scene.here()
    assert {"packs", "index", "manifests"} == {key.partition("/")[0] for key in mine}
    assert (report.attempts, report.snapshot) == (2, 3)
    again = {key.removesuffix(".2") for key in scene.store.puts if key.endswith(".2")}
    # Segments that name a chunk list name it by its new epoch, so they are others; packs hold the same bytes.
    assert {key.removesuffix(".0") for key in mine if key.startswith("packs/")} <= again
    assert any(key.startswith("manifests/") for key in again)
    for key in mine:
        scene.store.objects.pop(key, None)  # whoever finishes the prune comes at last
    scene.all_restores()


def test_a_prune_that_dooms_what_this_run_reuses(scene: Scene) -> None:
    """Packs of a forgotten snapshot: found in the index, reused, doomed before the append."""
    write(scene.site / "new-1", noise(200_000, 1))
    settle(scene.site)
    aside = scene.folder / "aside"
    scene.here()
    (scene.site / "new-1").rename(aside)
    settle(scene.site)
    scene.here()
    forget(scene.store, [2])
    aside.rename(scene.site / "new-1 again")
    settle(scene.site)
    doomed: list[str] = []

    def prunes() -> None:
        doomed.extend(prune(scene.store))

    scene.store.acts = [prunes]
    report = scene.here()
    assert any(key.startswith("packs/") for key in doomed)
    assert (report.attempts, report.snapshot) == (2, 6)
    scene.all_restores(2)


@pytest.mark.parametrize("kind", ["packs/", "index/"])
def test_a_prune_that_dooms_only_what_this_run_reuses(scene: Scene, kind: str) -> None:
    """Nothing that it wrote, and its parent lives."""
    write(scene.site / "new-1", noise(200_000, 1))
    settle(scene.site)
    before = set(scene.store.objects)
    scene.here()
    reused = [key for key in scene.store.objects if key.startswith(kind) and key not in before]
    (scene.site / "new-1").rename(scene.folder / "aside")
    settle(scene.site)
    scene.here()
    forget(scene.store, [2])
    (scene.folder / "aside").rename(scene.site / "new-1")
    write(scene.site / "fresh", noise(200_000, 2))
    settle(scene.site)
    scene.store.acts = [lambda: doom(scene.store, reused)]
    report = scene.here()
    assert reused
    assert (report.attempts, report.snapshot) == (2, 6)
    for key in reused:
        del scene.store.objects[key]
    scene.all_restores(2)


def test_a_prune_that_dooms_only_what_came_through_the_parent(scene: Scene) -> None:
    """Unchanged entries are taken over without naming where their content is: once the parent is forgotten, it may be gone."""
    write(scene.site / "new-1", noise(200_000, 1))
    settle(scene.site)
    before = set(scene.store.objects)
    scene.here()
    parents = [key for key in scene.store.objects if key.startswith("packs/") and key not in before]
    shutil.rmtree(scene.folder / "cache-here")  # so that nothing is unproven, and only what is new is read
    write(scene.site / "fresh", noise(200_000, 2))
    settle(scene.site)

    def forget_and_doom() -> None:
        forget(scene.store, [2])
        doom(scene.store, parents)

    scene.store.acts = [forget_and_doom]
    report = scene.here()
    assert parents
    assert (report.attempts, report.snapshot, report.parent) == (2, 5, 1)
    for key in parents:
        del scene.store.objects[key]
    scene.all_restores(2)


@pytest.mark.parametrize("kind", ["packs/", "index/", "manifests/"])
def test_each_kind_of_object_is_looked_at_after_a_race(scene: Scene, kind: str) -> None:
    scene.change()
    mine: list[str] = []

    def dooms_one_kind() -> None:
        fresh = [key for key in scene.store.objects if key.startswith(kind) and key not in before]
        mine.extend(fresh)
        doom(scene.store, fresh)

    before = set(scene.store.objects)
    scene.store.acts = [dooms_one_kind]
    report = scene.here()
    assert mine
    assert (report.attempts, report.snapshot) == (2, 3)
    for key in mine:
        del scene.store.objects[key]
    scene.all_restores()


def test_a_prune_hidden_behind_later_records_counts(scene: Scene) -> None:
    scene.change()

    def prunes() -> None:
        prune(scene.store)
        forget(scene.store, [])
        forget(scene.store, [])

    scene.store.acts = [prunes]
    report = scene.here()
    assert (report.attempts, report.snapshot) == (2, 5)
    scene.all_restores()


def test_a_prune_that_dooms_nothing_of_this_run_costs_one_more_append(scene: Scene) -> None:
    scene.change(1)
    scene.here()
    forget(scene.store, [1])
    unneeded = [key for key in scene.store.objects if key.startswith("packs/")]
    scene.change(2)

    def prunes() -> None:
        need = needs(scene.store)
        kept = {pack for places in need.chunks.values() for _, pack in places}
        doom(scene.store, [key for key in unneeded if key not in kept])

    scene.store.acts = [prunes]
    before = len(scene.store.puts)
    report = scene.here()
    assert (report.attempts, report.snapshot) == (1, 5)
    puts = [key for key in scene.store.puts[before:] if ObjectName.parse(key)]
    assert len({key.rpartition(".")[0] for key in puts}) == len(puts), "nothing was stored twice"
    record = log.read_record(scene.store, 5)
    assert record.epoch == 4
    scene.all_restores(1)


def test_one_prune_after_another_is_outlived(scene: Scene) -> None:
    scene.change()

    def prunes() -> None:
        prune(scene.store)

    scene.store.acts = [prunes, prunes, prunes]
    report = scene.here()
    assert (report.attempts, report.snapshot) == (4, 5)
    scene.all_restores()


def test_losing_for_ever_ends_in_one_sentence(scene: Scene) -> None:
    scene.change()
    scene.store.acts = [lambda: prune(scene.store)] * 30
    with pytest.raises(InTheWayError, match="attempts lost to other runs"):
        scene.here()
    scene.store.acts = []
    scene.here()
    scene.all_restores()


def test_what_the_head_named_is_gone_and_the_newer_head_knows(scene: Scene) -> None:
    """A prune and its deletions go by while a run without a cache reads the parent's manifest."""
    scene.change(1)
    scene.here()
    shutil.rmtree(scene.folder / "cache-here")
    scene.change(2)
    root = log.read_record(scene.store, 2).manifest.name.key()
    get = scene.store.get
    seen = threading.Event()

    def vanishing(key: str, limit: int) -> bytes:
        if key == root and not seen.is_set():
            seen.set()
            forget(scene.store, [2])
            prune(scene.store)
        return get(key, limit)

    scene.store.get = vanishing  # type: ignore[method-assign]
    report = scene.here()
    assert (report.attempts, report.snapshot, report.parent) == (2, 5, 1)
    scene.store.get = get  # type: ignore[method-assign]
    scene.all_restores(2)


def test_a_parent_that_is_simply_gone_is_no_endless_loop(scene: Scene) -> None:
    shutil.rmtree(scene.folder / "cache-here")
    del scene.store.objects[log.read_record(scene.store, 1).manifest.name.key()]
    scene.change()
    with pytest.raises(DamageError, match="it is not there, and a snapshot needs it; run `mirror verify`"):
        scene.here()


def test_a_target_that_was_overwritten_under_a_run_is_damage(scene: Scene) -> None:
    """The record that the run started from is another one when it comes to append."""
    scene.change()

    def mixed() -> None:
        body = json.loads(scene.store.objects[record_key(1)])
        scene.store.objects[record_key(1)] = sealed_json(body | {"tags": ["another history"]})
        forget(scene.store, [])

    scene.store.acts = [mixed]
    with pytest.raises(DamageError, match="chain is broken"):
        scene.here()
