"""A small site and its target through edits, syncs, rollbacks, crashes, lost answers, races, prunes and set-backs, against a
dictionary.

The dictionary is what was really in the folder when each snapshot was taken, asked of the system itself. Whatever happens in
between, every live snapshot comes back as it was, and none appears or goes but by a record.

    pytest tests/test_stateful.py               # a few dozen short histories
    pytest tests/test_stateful.py -m long       # many long ones
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, ClassVar, TypeVar

import pytest
from byhand import assert_told, dooms_of, forget, head_of, needs, prune
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from mirrors import BEGINNING, Item, noise, tree

from mirror import log
from mirror.errors import TargetMissingError, TemporaryError, UsageError
from mirror.hold import hold_of
from mirror.keys import record_number
from mirror.making import Making
from mirror.plan import DeletionLimit
from mirror.restore import RestoreOptions, restore
from mirror.rollback import RollbackOptions, rollback
from mirror.site import SiteSpec
from mirror.store import Data, Stat, StoreSpec
from mirror.store.memory import MemoryStore
from mirror.sync import SyncOptions, sync
from mirror.target import TargetSpec
from mirror.verify import VerifyOptions, verify

T = TypeVar("T")


class Killed(BaseException):
    """The process is gone; nothing that it would do afterwards reaches the store."""


class Flaky(MemoryStore):
    """A store that a run may lose. `fail(how, at)`: at the at-th call from now the run is killed before the store acts or after,
    one answer is lost, or the store is gone from then on. `act`: done once, before the next record is created."""

    def __init__(self, name: str = "") -> None:
        super().__init__(name)
        self.calm()

    def calm(self) -> None:
        self.how, self.left, self.struck = "", 0, False
        self.act: Callable[[], Any] | None = None

    def fail(self, how: str, at: int) -> None:
        self.how, self.left = how, at

    def _step(self, act: Callable[[], T]) -> T:
        if not self.how:
            return act()
        self.left -= 1
        if self.struck and self.how != "lost answer":
            raise self._error()
        if self.left > 0 or self.struck:
            return act()
        self.struck = True
        if self.how in ("killed after", "lost answer"):
            act()
        raise self._error()

    def _error(self) -> BaseException:
        return Killed() if self.how.startswith("killed") else TemporaryError("cannot reach", where=self.url, why="a test says so")

    def get(self, key: str, limit: int) -> bytes:
        return self._step(lambda: super(Flaky, self).get(key, limit))

    def get_ranges(self, key: str, ranges: Any) -> list[bytes]:
        return self._step(lambda: super(Flaky, self).get_ranges(key, ranges))

    def size(self, key: str) -> int | None:
        return self._step(lambda: super(Flaky, self).size(key))

    def list(self, prefix: str) -> Any:
        found: list[Stat] = self._step(lambda: [*super(Flaky, self).list(prefix)])
        return iter(found)

    def create(self, key: str, data: Data) -> bool:
        if record_number(key) is not None and self.act:
            act, self.act = self.act, None
            act()
        return self._step(lambda: super(Flaky, self).create(key, data))

    def put_hint(self, key: str, data: Data) -> None:
        self._step(lambda: super(Flaky, self).put_hint(key, data))


NAMES = ("a", "b", "a-b", "c", "index.html", "é")
paths = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map("/".join)
numbers = st.integers(0, 1 << 30)
hosts = st.sampled_from(("one", "two", ""))
contents = st.one_of(
    st.sampled_from((b"", b"x", b"same " * 3000)),
    st.tuples(st.sampled_from((10, 60_000, 300_000)), st.integers(0, 2)).map(lambda both: noise(*both)),
    st.just(0).map(lambda _: noise(1_400_000)),  # more than 64 chunks: a list of its own
)
EDITS = ("put", "put", "put", "edit", "delete", "rename", "describe", "link", "hard link", "folder")
CRASHES = ("killed before", "killed after", "lost answer", "gone")
RACES = ("race: run", "race: forget", "race: prune", "race: repack", "race: forget and prune")
PRUNES = ("", "forget", "prune", "prune and repack", "forget and prune", "forget and prune", "forget all and prune", "slow deleter")


class Nights(RuleBasedStateMachine):
    """One site, one target, three hosts (one without a cache)."""

    count: ClassVar[int] = 0

    @initialize()
    def begin(self) -> None:
        Nights.count += 1
        self.held = tempfile.TemporaryDirectory(prefix="mirror-nights-")
        self.folder = Path(self.held.name)
        self.site = self.folder / "site"
        self.site.mkdir()
        self.url = f"memory://nights-{Nights.count}"
        store = Flaky.named(f"nights-{Nights.count}")
        assert isinstance(store, Flaky)
        self.store = store
        self.truth: dict[int, dict[bytes, Item]] = {}
        self.was: dict[int, dict[bytes, Item]] = {}  # what a rollback may have brought back, though it was forgotten meanwhile
        self.copy: tuple[dict[str, bytes], dict[int, dict[bytes, Item]]] | None = None
        self.tick = BEGINNING
        self.run("one")

    def spec(self, host: str) -> TargetSpec:
        return TargetSpec(StoreSpec(self.url), self.folder / f"cache-{host}" if host else None)

    # -- edits ---------------------------------------------------------------------------------------------------------

    def _stamped(self, path: Path) -> None:
        """A time that no other content ever had: without a cache, size and time decide."""
        self.tick += 1_000_001
        os.utime(path, ns=(self.tick, self.tick), follow_symlinks=False)

    def _room(self, path: str) -> Path:
        """The path with folders above it, whatever was there gone."""
        full = self.site / path
        for above in [*reversed(full.relative_to(self.site).parents)][1:]:
            here = self.site / above
            if here.is_symlink() or here.is_file():
                here.unlink()
        if full.is_symlink() or full.is_file():
            full.unlink()
        elif full.exists():
            shutil.rmtree(full)
        full.parent.mkdir(parents=True, exist_ok=True)
        return full

    def _there(self, number: int, *, folders: bool = True) -> Path | None:
        found = sorted(path for path in self.site.rglob("*") if folders or (path.is_file() and not path.is_symlink()))
        return found[number % len(found)] if found else None

    def _edited(self, data: st.DataObject) -> None:
        for _ in range(data.draw(st.integers(0, 4))):
            path, number = data.draw(paths), data.draw(numbers)
            what = data.draw(
                st.sampled_from(("put", "put", "put", "edit", "delete", "rename", "describe", "link", "hard link", "folder"))
            )
            if what == "put":
                full = self._room(path)
                full.write_bytes(data.draw(contents))
                self._stamped(full)
            elif what == "link":
                self._room(path).symlink_to(data.draw(st.sampled_from(("a", "../../..", "/nowhere"))))
            elif what == "folder":
                self._room(path).mkdir()
            else:
                there = self._there(number, folders=what in ("delete", "rename", "describe"))
                if there:
                    self._change(what, there, self.site / path, number)

    def _change(self, what: str, there: Path, path: Path, number: int) -> None:
        apart = not path.is_relative_to(there) and not there.is_relative_to(path)
        aside = self.folder / "aside"
        if what == "edit":
            old = there.read_bytes()
            at = number % (len(old) + 1)
            there.write_bytes(old[:at] + b"%d" % number + old[at + number % 3 :])
            self._stamped(there)
        elif what == "delete":
            self._room(str(there.relative_to(self.site)))
        elif what == "rename" and apart:
            there.rename(aside)
            aside.rename(self._room(str(path.relative_to(self.site))))
        elif what == "hard link" and apart:
            os.link(there, aside)
            aside.rename(self._room(str(path.relative_to(self.site))))
        elif what == "describe" and not there.is_symlink():
            there.chmod((0o600, 0o644, 0o755, 0o700)[number % 4] | (0o700 if there.is_dir() else 0))
        elif what == "describe":
            self._stamped(there)

    # -- runs ----------------------------------------------------------------------------------------------------------

    def run(self, host: str, tags: tuple[str, ...] = ()) -> None:
        options = SyncOptions(
            making=Making("packed", "www"),
            workers=0,
            max_delete=DeletionLimit(percent=100),
            allow_empty_source=True,
            tags=tags,
            release=True,
        )
        try:
            report = sync(SiteSpec(str(self.site)), self.spec(host), options)
            assert not report.problems
        finally:
            self.store.calm()
            self.look()
        assert self.truth[max(self.truth)] == tree(self.site), "after a good run the newest snapshot is the site"

    def look(self) -> None:
        """Take note of snapshots that are new; none else may have come or gone."""
        head = log.read_head(self.store)
        live = list(head.live) if head else []
        fresh = [number for number in live if number not in self.truth]
        for number in fresh:
            of = log.read_record(self.store, number).body.get("rollback_of")
            self.truth[number] = (self.was | self.truth)[of] if of else tree(self.site)
        assert live == sorted(self.truth)

    @rule(
        data=st.data(),
        place=st.sampled_from(("", "", "", "", "copied", "set back", "cache one lost", "cache two lost")),
        pruned=st.sampled_from(PRUNES),
        host=hosts,
        how=st.sampled_from(("good", "good", "release", *CRASHES, *RACES)),
        seed=numbers,
    )
    def night(self, data: st.DataObject, place: str, pruned: str, host: str, how: str, seed: int) -> None:
        """What happens between two nights, and the run of the night."""
        self._edited(data)
        self._place(place)
        self._prune(pruned, seed)
        self.look()
        if how in CRASHES:
            self.store.fail(how, data.draw(st.integers(1, 25)))
        elif how in RACES:
            self.store.act = lambda: self._race(how, host, seed)
        try:
            self.run(host, ("release",) if how == "release" else ())
        except (Killed, TemporaryError):
            assert how in CRASHES

    def _race(self, how: str, host: str, seed: int) -> None:
        if how == "race: run":
            options = SyncOptions(workers=0, max_delete=DeletionLimit(percent=100), allow_empty_source=True, release=True)
            sync(SiteSpec(str(self.site)), self.spec("two" if host == "one" else "one"), options)
        else:
            self._prune(how.removeprefix("race: "), seed)

    @rule(number=numbers, host=hosts, how=st.sampled_from(("good", "good", *CRASHES, *RACES)), at=st.integers(1, 15), seed=numbers)
    def taken_back(self, number: int, host: str, how: str, at: int, seed: int) -> None:
        """A rollback to some snapshot; what comes after it holds for it as for any other."""
        live = sorted(self.truth)
        if not live:
            return
        self.was = dict(self.truth)
        chosen = live[number % len(live)]
        if how in CRASHES:
            self.store.fail(how, at)
        elif how in RACES:
            self.store.act = lambda: self._race(how, host, seed)
        try:
            options = RollbackOptions(str(chosen), max_delete=DeletionLimit(percent=100), workers=0)
            report = rollback(self.spec(host), options)
            assert (report.rollback_of, report.problems) == (chosen, [])
        except (Killed, TemporaryError):
            assert how in CRASHES
        except (UsageError, TargetMissingError):
            assert "forget" in how
        finally:
            self.store.calm()
            self.look()
        if how == "good":
            assert self.truth[max(self.truth)] == self.was[chosen]
            hold = hold_of(log.read_head(self.store))
            assert hold
            assert hold.of == chosen

    # -- the target ----------------------------------------------------------------------------------------------------

    def _prune(self, how: str, seed: int) -> None:
        random = Random(seed)
        if "forget" in how:
            live = list(head_of(self.store).live)
            gone = live if "all" in how else random.sample(live, random.randint(0, len(live)))
            forget(self.store, gone)
            for number in gone:
                self.truth.pop(number, None)
        if "prune" in how or "repack" in how:
            share, keep = random.choice((1.0, 1.0, 0.5)), random.random() < 0.6
            prune(self.store, keep_objects=keep, share=share, repack="repack" in how, random=random)
        if how == "slow deleter":
            doomed = dooms_of(self.store)
            self.store.delete([key for key in sorted(self.store.objects) if doomed(key) and random.random() < 0.7])

    def _place(self, how: str) -> None:
        if how == "copied":
            self.copy = dict(self.store.objects), dict(self.truth)
        elif how == "set back" and self.copy:
            self.store.objects.clear()
            self.store.objects.update(self.copy[0])
            self.truth = dict(self.copy[1])
        elif how.startswith("cache"):
            shutil.rmtree(self.folder / f"cache-{how.split()[1]}", ignore_errors=True)

    # -- questions -----------------------------------------------------------------------------------------------------

    @rule(host=hosts, number=numbers)
    def asked(self, host: str, number: int) -> None:
        live = sorted(self.truth)
        if live:
            self._restore(host, live[number % len(live)])
        if number % 3 == 0:
            self._verify(host)

    def _restore(self, host: str, number: int) -> None:
        out = self.folder / "out"
        report = restore(self.spec(host), str(out), RestoreOptions(at=str(number), workers=0))
        assert report.exit_code == 0, report.problems
        assert tree(out) == self.truth[number]
        shutil.rmtree(out)

    def _verify(self, host: str) -> None:
        report = verify(self.spec(host), VerifyOptions(workers=0))
        assert report.exit_code == 0, report.problems

    def teardown(self) -> None:
        if not hasattr(self, "held"):
            return
        try:
            need = needs(self.store)
            doomed = dooms_of(self.store)
            assert all(need.chunks.values())
            assert_told(self.store)
            assert need.objects <= set(self.store.objects)
            assert not any(map(doomed, need.objects))
            for number in self.truth:
                self._restore("one", number)
                self._restore("", number)
            self._verify("")
        finally:
            self.store.objects.clear()
            self.held.cleanup()


QUIET = (HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much)


def run_nights(examples: int, steps: int, *, derandomize: bool) -> None:
    """Not shrunk when it fails: that would take longer than a test may."""
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        Nights,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            derandomize=derandomize,
            suppress_health_check=QUIET,
            phases=(Phase.generate,),
        ),
    )


def test_nights() -> None:
    run_nights(30, 12, derandomize=True)


@pytest.mark.long
@pytest.mark.timeout(3600)
def test_many_long_nights() -> None:
    """Other nights each time: eight times the steps of the test above."""
    run_nights(100, 30, derandomize=False)
