"""Prune records made by hand: what they doom is used by nobody any more, whether or not it is still there."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from byhand import doom, dooms_of, forget, head_of, needs, prune
from mirrors import BEGINNING, Item, make_site, mirror, noise, settle, three_nights, tree, write

from mirror.envelope import CHUNKS
from mirror.keys import ObjectName
from mirror.log import read_record
from mirror.manifest import File
from mirror.restore import RestoreOptions, restore
from mirror.snapshot import ManifestReader
from mirror.store import StoreSpec
from mirror.store.memory import MemoryStore
from mirror.survey import LookOptions
from mirror.target import TargetSpec


class Place:
    """A target in memory with a cache on disk, and a site."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.cache = folder, folder / "cache"
        self.store = MemoryStore.named(str(folder))
        self.target = TargetSpec(StoreSpec(f"memory://{folder}"), self.cache)
        self._restored = 0

    def sync(self, **options: Any) -> Any:
        return mirror(self.folder / "site", self.target, **options)

    def restored(self, number: int) -> dict[bytes, Item]:
        self._restored += 1
        out = self.folder / f"out{self._restored}"
        report = restore(self.target, str(out), RestoreOptions(at=str(number), workers=0))
        assert report.exit_code == 0, report.problems
        found = tree(out)
        shutil.rmtree(out)
        return found

    def lose_cache(self) -> None:
        shutil.rmtree(self.cache)

    def epochs(self, place: str) -> set[int]:
        names = [ObjectName.parse(key) for key in self.store.objects if key.startswith(place)]
        return {name.epoch for name in names if name}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path)
    yield place
    place.store.objects.clear()


@pytest.mark.parametrize("gone", [False, True], ids=["objects stay", "objects go"])
@pytest.mark.parametrize("cache", [True, False], ids=["cache", "cache lost"])
def test_what_was_pruned_is_written_again_under_the_new_epoch(place: Place, gone: bool, cache: bool) -> None:
    """Content that only forgotten snapshots had comes back after a prune: the packs may still be there, and are not used."""
    site = make_site(place.folder / "site")
    place.sync()
    first = tree(site)
    (site / "big.bin").rename(place.folder / "aside")
    write(site / "index.html", b"later\n")
    settle(site)
    place.sync()
    second = tree(site)
    forget(place.store, [1])
    doomed = prune(place.store, keep_objects=not gone)
    number = head_of(place.store).number
    assert number == 4
    assert any(key.startswith("packs/") for key in doomed) or any(key.startswith("manifests/") for key in doomed)
    doom_all = [key for key in needs(place.store).objects if key in doomed]
    assert not doom_all
    if not cache:
        place.lose_cache()
    (place.folder / "aside").rename(site / "big.bin")
    (site / "index.html").unlink()
    write(site / "index.html", b"<h1>hello</h1>\n")
    (site / "index.html").chmod(0o640)
    settle(site)
    before = set(place.store.objects)
    report = place.sync()
    assert report.snapshot == 5
    written = set(place.store.objects) - before
    names = [name for key in written if (name := ObjectName.parse(key))]
    assert {name.epoch for name in names} <= {number}
    assert not any(map(dooms_of(place.store), written))
    assert all(needs(place.store).chunks.values())
    assert place.restored(2) == second
    assert place.restored(5) == first == tree(site)


def test_a_pack_that_is_doomed_and_still_there_is_stored_again(place: Place) -> None:
    """All content is repacked and the old packs are doomed but not deleted: new files of old content go to the new places."""
    nights = three_nights(place.folder, place.target)
    doomed = prune(place.store, repack=True, keep_objects=True)
    packs = {key for key in doomed if key.startswith("packs/")}
    assert packs <= set(place.store.objects)
    site = place.folder / "site"
    shutil.copyfile(site / "big.bin", site / "copy of big")
    write(site / "more", noise(300_000, 9))
    settle(site)
    uploaded = set(place.store.objects)
    report = place.sync()
    assert report.bytes_new <= 400_000, "the repacked content is used"
    new = {key for key in set(place.store.objects) - uploaded if key.startswith(("packs/", "index/"))}
    assert new
    assert {key.rpartition(".")[2] for key in new} == {"4"}
    for key in doomed:  # the slow deleter comes by
        place.store.objects.pop(key, None)
    for number, night in [(1, nights[0]), (2, nights[1]), (3, nights[2]), (5, tree(site))]:
        assert place.restored(number) == night


def test_readers_take_no_doomed_place(place: Place) -> None:
    """Doomed packs are there but spoilt: whoever reads one says so. Every snapshot restores from the other places."""
    nights = three_nights(place.folder, place.target)
    assert place.restored(3) == nights[2], "the reader's own index knows the old places"
    for key in prune(place.store, repack=True, keep_objects=True):
        if key.startswith(("packs/", "index/")):
            place.store.objects[key] = b"spoilt"
    for number, night in enumerate(nights, 1):
        assert place.restored(number) == night
    place.lose_cache()
    assert place.restored(1) == nights[0]


def test_an_unchanged_night_after_a_prune_reads_five_objects(place: Place) -> None:
    three_nights(place.folder, place.target)
    forget(place.store, [1])
    prune(place.store)
    time.sleep(2.1)  # what changed less than 2 s before it was read is read once more
    place.sync()
    before = dict(place.store.objects)
    for _ in range(2):
        report = place.sync()
        assert report.snapshot == 0
        assert sum(report.requests.values()) <= 5, report.requests
    assert place.store.objects == before


def test_an_unchanged_night_without_a_hint_finds_the_head_from_what_was_last_seen(place: Place) -> None:
    """Behind a prune and a long row of forgets, with a credential that cannot write the hint, every night went the long way."""
    three_nights(place.folder, place.target)
    for _ in range(20):
        prune(place.store)
    del place.store.objects["latest.json"]
    time.sleep(2.1)
    place.sync()
    report = place.sync()
    assert sum(report.requests.values()) <= 6, report.requests


def test_dooms_are_learned_one_by_one_and_all_again_without_a_cache(place: Place) -> None:
    site = make_site(place.folder / "site")
    place.sync()
    nights = {1: tree(site)}
    for round_ in range(4):
        write(site / "index.html", b"round %d\n" % round_ * 100, BEGINNING + round_)
        write(site / f"new {round_}", noise(50_000, round_))
        settle(site)
        report = place.sync()
        nights[report.snapshot] = tree(site)
        oldest = min(nights)
        forget(place.store, [oldest])
        del nights[oldest]
        prune(place.store, repack=round_ % 2 == 1, keep_objects=round_ % 2 == 0)
        if round_ == 2:
            place.lose_cache()
    assert list(head_of(place.store).live) == sorted(nights)
    write(site / "last", b"last")
    settle(site)
    report = place.sync()
    nights[report.snapshot] = tree(site)
    assert place.epochs("packs/") >= {report.snapshot - 1}
    for number, night in nights.items():
        assert place.restored(number) == night


@pytest.mark.parametrize("kinds", [("packs/",), ("index/",), ("packs/", "index/", "manifests/")])
def test_a_target_set_back_to_before_a_prune_has_all_its_places(place: Place, kinds: tuple[str, ...]) -> None:
    """The cache has learned of a prune that, after the storage was set back, never happened. Its index lacked the old packs, and
    readers called a good snapshot damaged."""
    nights = three_nights(place.folder, place.target)
    before = dict(place.store.objects)
    assert place.restored(3) == nights[2]
    prune(place.store, repack=True, kinds=kinds)
    assert place.restored(3) == nights[2]
    write(place.folder / "site" / "x", b"x")
    settle(place.folder / "site")
    place.sync()
    place.store.objects.clear()
    place.store.objects.update(before)
    for number, night in enumerate(nights, 1):
        assert place.restored(number) == night
    report = place.sync()
    assert report.snapshot == 4
    assert report.bytes_new == 1
    assert place.restored(4) == tree(place.folder / "site")


def test_a_big_file_is_the_same_after_a_prune(place: Place) -> None:
    """The list of its chunks is a tree, whose digest depends on the epoch: looked at again it was called changed, moved it was
    called deleted and new."""
    site = make_site(place.folder / "site")
    write(site / "huge", noise(7_000_000, 17))
    settle(site)
    place.sync()
    write(site / "huge", noise(7_000_000, 17) + b"!", BEGINNING + 1)
    settle(site)
    prune(place.store)
    report = place.sync()
    reader = ManifestReader(place.store, None)
    (huge,) = (entry for entry in reader.entries(read_record(place.store, report.snapshot).manifest) if entry.path == b"huge")
    assert isinstance(huge, File)
    assert huge.more
    assert len(list(reader.leaves(huge.more, CHUNKS))) > 1
    assert huge.more.epoch
    prune(place.store)
    report = place.sync(look=LookOptions(checksum=True))
    assert (report.snapshot, report.changed, report.attempts) == (0, 0, 1)
    place.lose_cache()
    (site / "huge").rename(site / "a" / "huger")
    settle(site)
    dry = place.sync(dry_run=True)
    report = place.sync()
    assert (report.moved, report.added, report.deleted) == (1, 0, 0) == (dry.moved, dry.added, dry.deleted)
    assert place.restored(report.snapshot) == tree(site)


def test_a_prune_whose_list_of_names_is_gone_stops_a_sync_with_one_sentence(place: Place) -> None:
    """What is doomed is not known: nothing may be reused, so nothing is written."""
    from mirror.errors import MirrorError

    three_nights(place.folder, place.target)
    record = doom(place.store, ["packs/00/" + "0" * 64 + ".0"])
    del place.store.objects[f"manifests/{record.body['dooms']['blake3'][:2]}/{record.body['dooms']['blake3']}.0"]
    write(place.folder / "site" / "x", b"x")
    settle(place.folder / "site")
    before = dict(place.store.objects)
    with pytest.raises(MirrorError) as caught:
        place.sync()
    assert caught.value.hint
    assert place.store.objects == before
