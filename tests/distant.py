"""A life of a tree that a `mirror serve` holds: edits, syncs of two clients over HTTP, imports that wait, publishes, syncs and
rollbacks on the server's own machine, drift, and deaths of whoever takes part; and what must hold after each step.

    life = Life(folder, seed)
    with life: life.goes_on(steps=40, deaths=True)

Seeded; what was done is told in `story`. What became of the tree is looked at in its folder, past the server.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from mirrors import Item, tree, write
from serving import ROOT, Served
from trees import Night, Walk, differing

import mirror
from mirror import log
from mirror.errors import InTheWayError, MirrorError, TemporaryError
from mirror.store.fs import FolderStore
from mirror.unfinished import unfinished

RUN_SECONDS = 120
NAME = "www"


def publishes(folder: Path) -> list[int]:
    """The processes that publish into this folder."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"publish" in words and bytes(folder) in words:
                found.append(int(process.name))
    return found


class Honest(Walk):
    """A site in which no file gets other bytes at the same size and time, which a host without memory cannot see. sly: one in which
    some do, so that every sync has to read."""

    sly = False

    def _rewrite(self) -> None:
        if self.sly:
            super()._rewrite()
        else:
            self._change()


class Life:
    """One tree, one server, one site that changes. together: clients and server keep what they remember in one folder, as they do
    where one user runs both. nights: what each snapshot holds."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.folder, self.walk = folder, Honest(folder / "site", seed)
        self.together, self.walk.sly = bool(seed % 2), bool(seed % 4 // 2)
        self.server = Served(folder / "server", "--min-free", "0")
        self.server.new_key("publisher", "read,append,publish")
        self.live = self.server.init(NAME, "tree")
        self.store = FolderStore(str(self.live / ".mirror"))
        self.nights: dict[int, Night] = {}
        self.story: list[str] = []
        self.deaths: dict[str, int] = {}
        self._drifted: set[bytes] = set()  # paths where something else stands than any sync has put there
        self._spoilt: set[str] = set()  # contents that stood where somebody has been
        self._lingers = False
        self._states: list[Night] = []
        self._took = 1.5

    def __enter__(self) -> Self:
        self.server.start()
        port = self.server.port
        self.server._options = ("--min-free", "0", "--listen", f"127.0.0.1:{port}")
        self.url = f"{self.server.url}/{NAME}"
        return self

    def __exit__(self, *_: object) -> None:
        for process in publishes(self.live):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        self.server.__exit__()

    @property
    def chance(self) -> random.Random:
        """The one source of chance, so that a seed says it all but for the moments of deaths."""
        return self.walk.chance

    # -- what is done ------------------------------------------------------------------------------------------------------

    def goes_on(self, steps: int, *, deaths: bool, drift: bool = False) -> None:
        """So many steps, each looked at."""
        self._settles()
        doing: list[Callable[[], None]] = [self._sync, self._sync, self._waits, self._waits_twice]
        doing += [self._here, self._back, self._both, self._lingering]
        if deaths:
            doing += [self._dies] * 5
        if drift:
            doing += [self._drift] * 3
        for _ in range(steps):
            self.walk.edit()
            self._states.append(tree(self.walk.root))
            self.chance.choice(doing)()
            self._settles()

    def _tell(self, what: str) -> None:
        self.story.append(what)
        if os.environ.get("MIRROR_TEST_STORY"):
            print(f"{time.strftime('%X')} {what}", flush=True)  # noqa: T201

    def _sync(self) -> None:
        self._tell("a sync")

    def _waits(self) -> None:
        """A key without the right to publish brings it; whoever may publishes, there or from afar, or nobody does."""
        report = self._bring()
        how = self.chance.choice(("there", "from afar", "nobody"))
        self._tell(f"import {report.waits} waits, published by {how}")
        if how == "there":
            mirror.publish(self.live, wait=True, min_free="0", cache_dir=self._cache("server"))
        elif how == "from afar":
            mirror.publish(self.url, key_file=self._key("publisher"), cache_dir=self._cache("a"))

    def _waits_twice(self) -> None:
        """What waits is brought anew before anybody has published it."""
        self._bring()
        self.walk.edit()
        self._states.append(tree(self.walk.root))
        self._waits()

    def _bring(self) -> Any:
        return mirror.sync(self.walk.root, self.url, **self._options("nightly", self.chance.choice("ab")))

    def _here(self) -> None:
        """A sync on the server's own machine, of the same site or of another."""
        site = self.walk.root
        if not self.chance.randrange(2):
            site = self.folder / "other"
            shutil.rmtree(site, ignore_errors=True)
            other = Walk(site, self.chance.randrange(1000))
            other.edit()
            self._states.append(tree(site))
        self._tell(f"a sync of {site.name} on the spot")
        mirror.sync(site, self.live, checksum=self.walk.sly, **self._at_home())

    def _back(self) -> None:
        """A rollback on the server's own machine; whoever syncs then is held."""
        number = self.chance.choice(sorted(self.nights))
        self._tell(f"a rollback to {number}")
        report = mirror.rollback(self.live, at=number, **self._at_home())
        assert report.problems == [] or self._drifted, report.problems
        self._states.append(self.nights[number])

    def _both(self) -> None:
        """Two clients at once."""
        self._tell("two clients")
        runs = [self._begin(name, self.chance.choice(("publisher", "publisher", "nightly"))) for name in "ab"]
        for run in runs:
            _, said = run.communicate(timeout=RUN_SECONDS)
            allowed = (0, 11) if not self._drifted else (0, 4, 11, 23, 24)
            assert run.returncode in allowed, (run.returncode, said.decode())

    def _lingering(self) -> None:
        """What left the site stays for a while, and people who have an old page still find its assets."""
        grace = self.chance.randint(1, 3)
        self._tell(f"a sync with --delete-grace {grace}")
        self._lingers = True
        self._begin("a", "publisher", "--delete-grace", str(grace)).communicate(timeout=RUN_SECONDS)

    def _drift(self) -> None:
        """Somebody is at the live files, and the site changes in the same places or uses what was there."""
        inside = (path for path in sorted(self.live.rglob("*")) if ".mirror" not in path.relative_to(self.live).parts)
        files = [path for path in inside if path.is_file() and not path.is_symlink()]
        for path in self.chance.sample(files, min(len(files), self.chance.randint(1, 4))):
            name = bytes(path.relative_to(self.live))
            was = self._item(path)
            same = [p for p, item in tree(self.live).items() if item.group and item.group == tree(self.live)[name].group]
            self._spoilt.add(was.content)
            self._drifted.update([name, *same])
            how = self.chance.randrange(4)
            if how == 0:
                path.unlink()
            elif how == 1:
                path.write_bytes(b"somebody was here " + self.chance.randbytes(20))
            elif how == 2:
                data = bytearray(path.read_bytes() or b"x")
                data[len(data) // 2] ^= 1
                path.write_bytes(data)
            else:
                path.write_bytes(path.read_bytes() + b"and more")
            twin = self.walk.root / os.fsdecode(name)
            if self.chance.randrange(2) and twin.is_file() and not twin.is_symlink():  # its chunks are wanted elsewhere
                wanted = twin.read_bytes() + b"more"
                self.walk._clear(self.walk.root / "wants")
                write(self.walk.root / "wants", wanted, self.walk._time())
        self._tell(f"drift at {sorted(self._drifted)}")
        self._states.append(tree(self.walk.root))

    def _item(self, path: Path) -> Item:
        return tree(self.live)[bytes(path.relative_to(self.live))]

    def _dies(self) -> None:
        """A sync over HTTP, in which one or two of those who take part die at some moment."""
        ways = ("client", "server", "publish", "publish", "server and publish", "all", "client, stopped", "server, stopped")
        who = self.chance.choice(ways)
        grace = ["--delete-grace", "1"] if not self.chance.randrange(5) else []
        run = self._begin(self.chance.choice("ab"), "publisher", *grace)
        self._lingers = True
        after = self.chance.random() * self._took
        began = time.monotonic()
        if who.startswith("publish") and self.chance.randrange(4):
            while not publishes(self.live) and run.poll() is None and time.monotonic() - began < 20:
                time.sleep(0.005)
            after = self.chance.random() * self._took / 2
        if who == "client, stopped":
            after = max(after, 0.8)  # before that Python itself is interrupted
        time.sleep(after)
        if who in ("client", "all"):
            run.kill()
        if who == "client, stopped":
            run.send_signal(signal.SIGINT)
        if who == "server, stopped":
            self.server.stop()
        if who in ("server", "server and publish", "all"):
            assert self.server.process
            self.server.process.kill()
            self.server.process.wait()
        victims = publishes(self.live) if "publish" in who or who == "all" else []
        for process in victims:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        if "server" in who or who == "all":
            self.server.start()
        _, said = run.communicate(timeout=RUN_SECONDS)
        open_ = self._open()
        end = f"the client ended with {run.returncode}, {open_ or 'nothing'} is open"
        self._tell(f"{who} died after {after:.2f} s ({len(victims)} publishes), {end}")
        self.deaths[who] = self.deaths.get(who, 0) + 1
        expected = {"client": (0, -9), "all": (0, -9), "client, stopped": (0, 130, -2)}.get(who, (0,))
        allowed = expected if not self._drifted else (*expected, 4, 23, 24)
        if "server" in who and b"/mirror.json: " in said:
            allowed = (*allowed, 5)  # it was gone before it had answered at all
        assert run.returncode in allowed, (who, run.returncode, said.decode())
        if run.returncode == 0:
            self._took = min(6.0, max(0.7, time.monotonic() - began))

    # -- the parts of that ---------------------------------------------------------------------------------------------------

    def _key(self, name: str) -> Path:
        return self.server.folder / f"{name}.key"

    def _cache(self, name: str) -> Path:
        return self.server.folder / "cache" if self.together or name == "server" else self.folder / f"cache-{name}"

    def _options(self, key: str, host: str) -> dict[str, Any]:
        how = {"key_file": self._key(key), "cache_dir": self._cache(host), "checksum": self.walk.sly}
        return how | {"max_delete": "100%", "release": True, "wait": True}

    def _at_home(self) -> dict[str, Any]:
        """How verbs are run on the server's own machine."""
        return {"max_delete": "100%", "wait": True, "min_free": "0", "cache_dir": self._cache("server")}

    def _reading(self) -> dict[str, Any]:
        return {"key_file": self._key("publisher"), "cache_dir": self._cache("a")}

    def _begin(self, host: str, key: str, *more: str) -> subprocess.Popen[bytes]:
        words = [sys.executable, "-W", "error", "-m", "mirror", "sync", str(self.walk.root), self.url, "--max-delete", "100%",
                 "--release", "--wait", "--cache-dir", str(self._cache(host)), "--key-file", str(self._key(key)), *more,
                 *(["--checksum"] if self.walk.sly else [])]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    def _open(self) -> str:
        found = unfinished(self.store, log.read_head(self.store))
        return f"{found.kind} {found.number}" if found is not None else ""

    # -- what must hold --------------------------------------------------------------------------------------------------------

    def _settles(self) -> None:
        """The next sync completes, people see the site, every new snapshot is a state that the site was in, and some of the older
        ones come back, there and over HTTP."""
        problems = self._completes()
        end = time.monotonic() + 60
        while publishes(self.live) and time.monotonic() < end:
            time.sleep(0.02)
        assert not self._open(), self.story[-5:]
        now = tree(self.walk.root)
        seen = {path: item for path, item in tree(self.live).items() if path != b".mirror/" and not path.startswith(b".mirror/")}
        wrong = differing(seen, now)
        if self._drifted:
            # To look at live files is the task of verify alone: where the site has not changed, what somebody did there stays. A
            # hard link to that stands alone. And nothing is deleted while something fails.
            wrong = {path: pair for path, pair in wrong.items() if not self._is_near_drift(path) and not _alike(*pair)}
            wrong = {path: pair for path, pair in wrong.items() if not (problems and pair[1] is None)}
        assert not wrong, (wrong, problems, self.story[-5:])
        self._learn([*self._states, now])
        self._states = [now]
        known = sorted(self.nights)
        for number in {*known[-2:], *self.chance.sample(known, min(2, len(known)))}:
            self._comes_back(number, self.chance.random() < 0.5)
        self._is_clean()

    def _is_near_drift(self, path: bytes) -> bool:
        return any(path == each or path.startswith(each + b"/") or each.startswith(path) for each in self._drifted) or path == b""

    def _completes(self) -> list[Any]:
        host = self.chance.choice("ab")
        for _ in range(4):
            try:
                report = mirror.sync(self.walk.root, self.url, heartbeat=self._lingers, **self._options("publisher", host))
            except (InTheWayError, TemporaryError) as error:
                raise AssertionError((str(error), self.story[-5:])) from error
            if report.problems == []:
                break
            assert self._drifted, (report.problems, self.story[-5:])
            self._tell(f"problems: {[(p.path, p.kind, p.why) for p in report.problems]}")
        else:
            assert all(problem.path.encode() in self._drifted for problem in report.problems), (report.problems, self.story[-8:])
        self._lingers = False
        self._tell(f"completed with snapshot {report.snapshot}")
        return list(report.problems)

    def _learn(self, states: list[Night]) -> None:
        for line in mirror.snapshots(self.live):
            if line.number in self.nights:
                continue
            back = self._restored(line.number, False)
            if self._drifted or not line.complete:
                assert self._drifted, (line, self.story[-5:])
                self.nights[line.number] = back
                continue
            assert back in states, (line.number, [differing(back, state) for state in states], self.story[-5:])
            self.nights[line.number] = back
        gone = set(self.nights) - {line.number for line in mirror.snapshots(self.live)}
        assert not gone, gone

    def _restored(self, number: int, afar: bool) -> Night:
        out = self.folder / "out"
        shutil.rmtree(out, ignore_errors=True)
        options = self._reading() if afar else {}
        report = mirror.restore(self.url if afar else self.live, out, at=number, **options)
        if report.problems:
            assert self._spoilt, (number, report.problems, self.story[-8:])
            lost = [(problem.path, problem.kind) for problem in report.problems]
            self._tell(f"restore of {number} {'from afar' if afar else ''} lost {lost}")
        back = tree(out)
        shutil.rmtree(out)
        return back

    def _comes_back(self, number: int, afar: bool) -> None:
        wrong = differing(self._restored(number, afar), self.nights[number])
        if self._spoilt:
            known = ((path, pair, self.nights[number].get(path)) for path, pair in wrong.items())
            wrong = {p: pair for p, pair, item in known if item and item.kind == "file" and item.content not in self._spoilt}
        assert not wrong, (number, afar, wrong, self.story[-8:])

    def _is_clean(self) -> None:
        afar = self.chance.random() < 0.5
        options = self._reading() if afar else {}
        try:
            report = mirror.verify(self.url if afar else self.live, **options)
        except MirrorError as error:
            raise AssertionError((str(error), self.story[-5:])) from error
        found = [problem for problem in report.problems if problem.kind != "extra"]
        if self._drifted and found:
            self._tell(f"verify: {[(p.path, p.kind) for p in found][:5]}")
            return
        assert not found, (found, self.story[-5:])


def _alike(one: Item | None, other: Item | None) -> bool:
    """Whether two paths are the same but for their hard links."""
    return one is not None and other is not None and one._replace(group="") == other._replace(group="")
