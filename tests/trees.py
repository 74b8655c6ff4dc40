"""Trees for tests: what people see of one, and a site that changes in all the ways that a site can, the same for every seed."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from byhand import assert_told
from mirrors import BEGINNING, Item, settle, tree, write

from mirror.events import Problem
from mirror.making import Making
from mirror.restore import RestoreOptions, restore
from mirror.site import SiteSpec
from mirror.store.open import is_folder_url, open_store
from mirror.sync import SyncOptions, SyncReport, sync
from mirror.target import TargetSpec, located

Night = dict[bytes, Item]
MAKE = Making("tree", "www")
_NAMES = ("index.html", "a", "a-b", "b.css", "c", "data.json", "d.js", "e.bin")


def live(target: TargetSpec) -> Night:
    """What is in the live folder, without the store."""
    seen = tree(Path(target.store.url))
    return {path: item for path, item in seen.items() if path != b".mirror/" and not path.startswith(b".mirror/")}


def publish(site: Path, target: TargetSpec, **options: Any) -> SyncReport:
    """A sync into a tree, which may be new."""
    return sync(SiteSpec(str(site)), target, SyncOptions(**({"making": MAKE, "workers": 0, "min_free": 0} | options)))


def clean(site: Path, target: TargetSpec, **options: Any) -> SyncReport:
    """The same without any problem, after which people see just the site."""
    report = publish(site, target, **options)
    assert report.problems == [], report.problems
    assert not (wrong := differing(live(target), tree(site))), wrong
    return report


def differing(one: Night, other: Night) -> dict[bytes, tuple[Item | None, Item | None]]:
    """Paths in which two nights differ."""
    return {path: (one.get(path), other.get(path)) for path in one.keys() | other.keys() if one.get(path) != other.get(path)}


def restored(target: TargetSpec, at: int, out: Path) -> Night:
    """A snapshot as a restore gives it back, in full or not at all."""
    report = restore(target, str(out), RestoreOptions(at=str(at), workers=0))
    assert report.problems == [], report.problems
    back = tree(out)
    shutil.rmtree(out)
    return back


def all_restore(target: TargetSpec, nights: dict[int, Night], folder: Path) -> None:
    """Every snapshot comes back as it was, and in a folder the log tells of every fragment that is needed for that."""
    if is_folder_url(target.store.url):
        assert_told(open_store(located(target)[0].store), Path(target.store.url))
    for number, night in nights.items():
        assert not (wrong := differing(restored(target, number, folder / f"out-{number}"), night)), (number, wrong)


def kinds(problems: list[Problem]) -> list[tuple[str, str]]:
    """(path, kind) of problems."""
    return [(problem.path, problem.kind) for problem in problems]


def some_of(numbers: Iterable[int], every: int) -> list[Any]:
    """Parameters of a test: every so many-th number always, the others where the long tests are run."""
    return [number if not at % every else pytest.param(number, marks=pytest.mark.long) for at, number in enumerate(numbers)]


class Walk:
    """A site and a seeded walk of edits. Times move only when the edit says so."""

    def __init__(self, root: Path, seed: int) -> None:
        self.root, self.chance, self.clock = root, random.Random(seed), 0
        root.mkdir()
        for _ in range(12):
            self._add()
        settle(root)

    def edit(self) -> None:
        """Some changes, then a quiet moment."""
        steps = (self._add, self._add, self._change, self._rewrite, self._rename, self._rename, self._delete, self._turn,
                 self._link, self._hard_link, self._mode, self._part_hard_links, self._swap)  # fmt: skip
        for _ in range(self.chance.randint(1, 6)):
            self.chance.choice(steps)()
        settle(self.root)

    def _time(self) -> int:
        self.clock += 1
        return BEGINNING + self.clock

    def _data(self) -> bytes:
        size = self.chance.choice(
            (0, 1, 17, 5_000, 40_000, 150_000, 1_300_000) if not self.chance.randrange(4) else (3, 900, 9_000)
        )
        return self.chance.randbytes(size)

    def _paths(self, *, files: bool = True, folders: bool = False) -> list[Path]:
        found = sorted(self.root.rglob("*"))
        return [
            p for p in found if (files and p.is_file() and not p.is_symlink()) or (folders and p.is_dir() and not p.is_symlink())
        ]

    def _place(self) -> Path:
        folders = [self.root, *self._paths(files=False, folders=True)]
        folder = self.chance.choice(folders)
        if len(folder.relative_to(self.root).parts) < 3 and not self.chance.randrange(3):
            folder = folder / self.chance.choice(("sub", "a", "c"))
        return folder / self.chance.choice(_NAMES)

    def _clear(self, path: Path) -> None:
        for above in reversed(path.relative_to(self.root).parents):
            if (self.root / above).is_symlink() or (self.root / above).is_file():
                (self.root / above).unlink()
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.is_symlink() or path.exists():
            path.unlink()
        path.parent.mkdir(parents=True, exist_ok=True)

    def _add(self) -> None:
        path = self._place()
        self._clear(path)
        write(path, self._data(), self._time())

    def _pick(self) -> Path:
        return self.chance.choice(self._paths() or [self._fallback()])

    def _fallback(self) -> Path:
        path = self.root / "fallback.txt"
        write(path, b"there is always one", self._time())
        return path

    def _change(self) -> None:
        path = self._pick()
        data = bytearray(path.read_bytes() or b"grown")
        at = self.chance.randrange(len(data))
        data[at:at] = self.chance.randbytes(self.chance.choice((1, 100)))
        path.write_bytes(data)
        os.utime(path, ns=(self._time(),) * 2)

    def _rewrite(self) -> None:
        """Other bytes, as many, at the same time: only inode and ctime tell."""
        path = self._pick()
        seen = path.stat()
        data = self.chance.randbytes(seen.st_size)
        path.unlink()
        write(path, data, seen.st_mtime_ns)

    def _rename(self) -> None:
        source = self.chance.choice(self._paths(folders=True) or [self._fallback()])
        goal = self._place()
        if source == goal or source in goal.parents or goal in source.parents:
            return
        self._clear(goal)
        if source.exists():
            source.rename(goal)

    def _delete(self) -> None:
        path = self.chance.choice(self._paths(folders=True) or [self._fallback()])
        self._clear(path)

    def _turn(self) -> None:
        """A file becomes a folder, or the reverse."""
        path = self.chance.choice(self._paths(folders=True) or [self._fallback()])
        was_folder = path.is_dir()
        inside = path.read_bytes() if not was_folder else b""
        moved = next((each.read_bytes() for each in sorted(path.rglob("*")) if each.is_file()), b"") if was_folder else b""
        self._clear(path)
        if was_folder:
            write(path, moved, self._time())
        else:
            write(path / "was-a-file", inside, self._time())

    def _link(self) -> None:
        path = self._place()
        self._clear(path)
        path.symlink_to(self.chance.choice(("a", "../b.css", "/nowhere", "index.html")))

    def _hard_link(self) -> None:
        source, path = self._pick(), self._place()
        if source == path or path in source.parents or source in path.parents:
            return
        self._clear(path)
        if source.exists():
            os.link(source, path)

    def _part_hard_links(self) -> None:
        """A file of several names gets one of its own again, with the same content."""
        for path in self._paths():
            seen = path.stat()
            if seen.st_nlink > 1:
                data = path.read_bytes()
                path.unlink()
                write(path, data, seen.st_mtime_ns)
                return

    def _mode(self) -> None:
        path = self.chance.choice(self._paths(folders=True) or [self._fallback()])
        path.chmod(self.chance.choice((0o755, 0o750, 0o700)) if path.is_dir() else self.chance.choice((0o644, 0o600, 0o755, 0o444)))

    def _swap(self) -> None:
        one, other = self._pick(), self._pick()
        if one != other:
            between = self.root / "between"
            one.rename(between)
            other.rename(one)
            between.rename(other)
