"""Syncs into a tree that are killed (SIGKILL, all their processes) at random moments of publishing, and what must hold afterwards.

    kills = Kills(target, walk, folder, look=lambda: live(target))
    kills.until(deaths=50)
    kills.everything_comes_back()

Knows nothing of where the tree is: `target` says it to the functions of mirror, `words` to its command line (`--endpoint-url …`),
and `look` says what people see there. Seeded; what was done is told in `story`.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mirrors import BEGINNING, Item, settle, tree, write
from trees import MAKE, Night, Walk, differing, restored

from mirror import log
from mirror.contents import ls, snapshots
from mirror.manifest import File
from mirror.plan import DeletionLimit
from mirror.site import SiteSpec
from mirror.survey import LookOptions
from mirror.sync import SyncOptions, SyncReport, sync
from mirror.target import TargetSpec, open_target
from mirror.unfinished import unfinished
from mirror.verify import verify

ROOT = Path(__file__).resolve().parents[1]
RUN_SECONDS = 120


class BusySite(Walk):
    """A site in which much changes each time, in all ways: a publish of it takes a while. pages: how many; half as many assets."""

    def __init__(self, root: Path, seed: int, pages: int = 300) -> None:
        super().__init__(root, seed)
        self._pages = pages
        self._release()
        settle(root)

    def edit(self) -> None:
        """A day's work."""
        self._release()
        super().edit()
        super().edit()

    def _release(self) -> None:
        bulk, now = self.root / "bulk", self._time()
        for path in self._assets():
            if self.chance.randrange(4):
                path.unlink()
        for number in range(self._pages // 2):
            data = self.chance.randbytes(self.chance.choice((10, 900, 20_000)))
            self._place_in(bulk / f"asset-{now - BEGINNING}-{number}.js", data, now)
        for number in range(self._pages):
            if self.chance.randrange(5):
                self._place_in(bulk / "pages" / f"{number}.html", f"<p>{now} {number}".encode() * self.chance.randint(1, 60), now)
        for path in self.chance.sample(self._assets(), 15):
            path.rename(path.with_name(f"{path.stem}-moved.js"))

    def _assets(self) -> list[Path]:
        return [path for path in sorted((self.root / "bulk").glob("asset-*")) if path.is_file() and not path.is_symlink()]

    def _place_in(self, path: Path, data: bytes, now: int) -> None:
        self._clear(path)  # another edit may have put a folder or a link there
        write(path, data, now)


@dataclass
class Kills:
    """One target, one site that changes, and a row of deaths. hits: deaths that left a publishing open or deletions due."""

    target: TargetSpec
    walk: BusySite
    folder: Path
    look: Callable[[], Night]
    words: Sequence[str] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    may_be_incomplete: bool = False
    deaths: int = 0
    hits: int = 0
    twice: int = 0
    between: dict[str, int] = field(default_factory=dict)
    nights: dict[int, Night] = field(default_factory=dict)
    story: list[str] = field(default_factory=list)
    _durations: list[float] = field(default_factory=list)
    _lingers: bool = False  # assets of older snapshots may stand beside the site

    @property
    def chance(self) -> random.Random:
        """The one source of chance, so that a seed says it all."""
        return self.walk.chance

    def until(self, deaths: int) -> None:
        """Let so many syncs die, each followed by what must go well."""
        self._completes([])
        for _ in range(3):  # how long does a publish take here?
            self.walk.edit()
            begun, ended = self._run(None)
            assert begun
            self._durations.append(ended - begun)
            self._learn([tree(self.walk.root)])
        while self.deaths < deaths:
            self._round()

    def everything_comes_back(self) -> None:
        """Every snapshot there is, byte for byte."""
        assert [line.number for line in snapshots(self.target)] == sorted(self.nights)
        for number in self.nights:
            self._comes_back(number)

    # -- one death ----------------------------------------------------------------------------------------------

    def _round(self) -> None:
        self.walk.edit()
        states = [tree(self.walk.root)]
        self._die()
        if not self.chance.randrange(4):
            self.twice += 1
            self._die()
        if not self.chance.randrange(3):
            self._other_verb()
        if not self.chance.randrange(5):
            self.walk.edit()
            states.append(tree(self.walk.root))
        self._completes(states)
        known = sorted(self.nights)
        for number in {*known[-2:], *self.chance.sample(known, min(2, len(known)))}:
            self._comes_back(number)

    def _die(self) -> None:
        after = self.chance.random() * sorted(self._durations)[len(self._durations) // 2]
        begun, _ = self._run(after)
        self.deaths += 1
        found = self._open()
        self.hits += bool(found)
        self.story.append(f"killed {after * 1000:.0f} ms after publishing began: {found or 'nothing is open'}")
        if begun and not found:
            self._durations = [*self._durations[-4:], after]  # it was faster than thought

    def _run(self, kill_after: float | None) -> tuple[float, float]:
        """A sync in processes of its own, killed so many seconds after it began to publish (None: not). When it began to publish
        (0: not at all), and when it ended."""
        words = ["sync", str(self.walk.root), self.target.store.url, "--layout", "tree", "--max-delete", "100%", "--json", "-q",
                 "--min-free", "0", "--cache-dir", str(self.target.cache), *self.words]  # fmt: skip
        if not self.chance.randrange(4):
            words += ["--delete-grace", "1"]
            self._lingers = True
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "mirror", *words]
        with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, start_new_session=True) as run:
            assert run.stdout
            begun = ended = 0.0
            for line in run.stdout:
                event = json.loads(line)
                if event["event"] == "phase" and event["phase"] == "write" and not begun:
                    begun = time.monotonic()
                    if kill_after is not None:
                        time.sleep(kill_after)
                        os.killpg(run.pid, signal.SIGKILL)
                ended = time.monotonic()  # the last line is the summary: what comes then is the end of Python
            run.wait(RUN_SECONDS)
        assert run.returncode in ((0,) if kill_after is None else (0, -signal.SIGKILL)), run.returncode
        return begun, ended

    def _open(self) -> str:
        """What is open in the target now, in words; empty when nothing is."""
        with open_target(self.target, dry_run=True) as target:
            found = unfinished(target.store, log.read_head(target.store))
        return f"{found.kind} {found.number}" if found is not None else ""

    # -- what must go well --------------------------------------------------------------------------------------

    def _other_verb(self) -> None:
        verbs = {"ls": self._list, "verify": self._verify, "restore": self._restore, "dry run": self._dry_run}
        name = self.chance.choice(sorted(verbs))
        before = self._open()
        verbs[name]()
        assert self._open() == before, f"{name} has changed the target"
        self.between[name] = self.between.get(name, 0) + 1
        self.story.append(f"then {name}")

    def _list(self) -> None:
        number = self.chance.choice(sorted(self.nights))
        files = {entry.path for entry in ls(self.target, str(number)) if isinstance(entry, File)}
        assert files == {path for path, item in self.nights[number].items() if item.kind == "file"}

    def _verify(self) -> None:
        found = verify(self.target)
        assert {problem.kind for problem in found.problems} <= {"extra"}, found.problems

    def _restore(self) -> None:
        self._comes_back(self.chance.choice(sorted(self.nights)))

    def _dry_run(self) -> None:
        assert self._sync(dry_run=True).problems == []

    def _sync(self, **options: object) -> SyncReport:
        target = self.target
        if not self.chance.randrange(6):  # another host, which has never seen this target
            assert target.cache
            target = replace(target, cache=self.folder / f"another-{len(self.story)}")
            options["look"] = LookOptions(checksum=True)  # else it goes by size and time, and some edits keep both
        given = SyncOptions(making=MAKE, workers=0, min_free=0, max_delete=DeletionLimit(percent=100), **self.options, **options)  # type: ignore[arg-type]
        return sync(SiteSpec(str(self.walk.root)), target, given)

    def _completes(self, states: list[Night]) -> None:
        """The next sync completes, people see the site, and what it or its dead forerunners made are snapshots of just that."""
        report = self._sync(heartbeat=self._lingers)  # what lingers goes with the next snapshot
        self._lingers = False
        assert report.problems == [], (report.problems, self.story[-5:])
        assert not self._open()
        now = tree(self.walk.root)
        assert not (wrong := differing(self.look(), now)), (wrong, self.story[-5:])
        self._learn([*states, now])
        assert self.nights[max(self.nights)] == now
        self.story.append(f"completed with snapshot {report.snapshot}")

    def _was(self, path: bytes, item: Item, states: list[Night]) -> bool:
        """Whether a path had this content in one of the nights."""
        nights = (night.get(path) for night in (*states, *self.nights.values()))
        return any(was is not None and was.content == item.content for was in nights)

    def _learn(self, states: list[Night]) -> None:
        for line in snapshots(self.target):
            if line.number in self.nights:
                continue
            back = restored(self.target, line.number, self.folder / "out")
            if not line.complete and self.may_be_incomplete:
                # Nothing is staged in a bucket: what the site has no more stays as it was.
                odd = [path for path, item in back.items() if item.kind == "file" and not self._was(path, item, states)]
                assert odd == [], (line.number, odd, self.story[-5:])
                self.nights[line.number] = back
                continue
            assert line.complete, (line, self.story[-5:])
            assert back in states, (line.number, [differing(back, state) for state in states], self.story[-5:])
            self.nights[line.number] = back

    def _comes_back(self, number: int) -> None:
        back = restored(self.target, number, self.folder / "out")
        assert not (wrong := differing(back, self.nights[number])), (number, wrong, self.story[-5:])
