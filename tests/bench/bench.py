"""What all scenarios share: a work folder, the environment of every tool, and one measured command after another.

Nothing of the person who runs it is used: HOME and every cache and configuration lie in the work folder.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from . import measure
from .figures import NOT_BUILT, US, Sample, Table
from .tools import RESTORE, Tool

CHECKOUT = Path(__file__).resolve().parents[2]
# ext4 does not give out an inode again within 60 s of its deletion, and looks at each such one whenever it makes a file
# (recently_deleted): `cp -a` of rust-doc took 1.5 s, and 12 to 18 s after an `rm -rf` of such a tree.
SETTLE_SECONDS = 65


def say(text: str) -> None:
    """A line on the terminal."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def our_command(env: Mapping[str, str]) -> list[str]:
    """How `mirror` of this checkout is started; [] while there is no such command."""
    command = [sys.executable, "-m", "mirror"]
    run = subprocess.run([*command, "--help"], env=dict(env), cwd="/", capture_output=True, timeout=60, check=False)
    return command if run.returncode == 0 else []


def environment(work: Path) -> dict[str, str]:
    """The environment of every command: the path, and homes and caches inside the work folder."""
    home = work / "home"
    home.mkdir(parents=True, exist_ok=True)
    return {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "LANG": "C.UTF-8",
        "HOME": str(home),
        "TMPDIR": str(work),
        "XDG_CACHE_HOME": str(home / "cache"),
        "XDG_CONFIG_HOME": str(home / "config"),
        "XDG_DATA_HOME": str(home / "data"),
        "XDG_STATE_HOME": str(home / "state"),
        "PYTHONPATH": str(CHECKOUT),
        "PYTHONSAFEPATH": "1",  # `-m mirror` must not look into the site it mirrors
        "RESTIC_PASSWORD": "benchmark",
        "RESTIC_CACHE_DIR": str(home / "restic"),
        "BORG_BASE_DIR": str(home / "borg"),
        "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
        "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
        "RCLONE_CONFIG": str(home / "rclone.conf"),
    }


@dataclass(frozen=True, slots=True)
class Places:
    """Where one tool works in one round."""

    src: Path
    store: Path
    out: Path
    bucket: str = ""
    endpoint: str = ""


@dataclass
class Bench:
    """One run of the benchmark. work: an empty folder on the measured disk; mirror: our command, [] if not built."""

    work: Path
    rust_doc: Path
    nexts: Sequence[Path]
    rounds: int
    env: Mapping[str, str]
    mirror: list[str]
    workers: int
    table: Table = field(default_factory=Table)

    def fresh(self, name: str) -> Path:
        """A new empty folder in the work folder; one of the same name is removed first."""
        folder = self.work / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def clear(self, settle_seconds: int) -> None:
        """Remove what a scenario made, and wait until the filesystem has forgotten that, and what others removed."""
        for folder in self.work.iterdir():
            if folder.is_dir() and folder.name != "home":
                shutil.rmtree(folder)
        os.sync()
        say(f"waiting {settle_seconds} s")
        time.sleep(settle_seconds)

    def add(self, sample: Sample) -> None:
        """Keep a sample and show it."""
        self.table.add(sample)
        parts = [f"{sample.scenario:11} {sample.step:44} {sample.tool:7}"]
        parts += [f"{sample.seconds:8.2f} s {sample.cpu_seconds or 0:8.2f} CPU s"] if sample.seconds is not None else []
        parts += [f"{sample.bytes / 1e6:9.2f} MB"] if sample.bytes is not None else []
        parts += [f"{sample.peak_bytes / 1e6:6.0f} MB peak"] if sample.peak_bytes is not None else []
        parts += [f"{sample.requests:6} requests"] if sample.requests is not None else []
        say(" ".join([*parts, sample.failure]).rstrip())

    def step(self, scenario: str, tool: Tool, step: str, places: Places, *, name: str = "", memory: bool = False) -> bool:
        """Run one step of a tool and keep its sample under `name` (default: the step). Whether it went well."""
        empty = Sample(scenario, name or step, tool.name)
        if tool.name == US and not self.mirror:
            self.add(replace(empty, failure=NOT_BUILT))
            return False
        run = self.run(tool.steps[step], places, cwd=places.out if step == RESTORE else places.src, memory=memory)
        if run is None:
            self.add(replace(empty, failure="not installed"))
            return False
        failure = f"exit {run.code}: {run.last_line[:120]}" if run.code else ""
        self.add(
            replace(
                empty,
                seconds=run.seconds,
                cpu_seconds=run.cpu_seconds,
                peak_bytes=run.peak_bytes if memory else None,
                failure=self._tidy(failure),
            )
        )
        return not failure

    def prepare(self, tool: Tool, places: Places) -> None:
        """Run what a tool needs before its first step; a failure shows in that step."""
        if tool.prepare:
            self.run(tool.prepare, places, cwd=places.src)

    def run(self, template: str, places: Places, *, cwd: Path, memory: bool = False) -> measure.Run | None:
        """Fill in a command and run it on a disk that has nothing left to write; None if it is not installed."""
        command = self.command(template, places)
        if not shutil.which(command[0], path=self.env["PATH"]):
            return None
        os.sync()
        return measure.run(command, env=self.env, cwd=cwd, output=self.work / "output", memory=memory)

    def command(self, template: str, places: Places) -> list[str]:
        """The words of a command, each place filled in; our own command may be several words."""
        words: list[str] = []
        for word in shlex.split(template):
            if word == "{mirror}":
                words += self.mirror
                continue
            values = {
                "src": places.src,
                "store": places.store,
                "out": places.out,
                "bucket": places.bucket,
                "endpoint": places.endpoint,
            }
            words.append(word.format(workers=self.workers, **values))
        return words

    def _tidy(self, text: str) -> str:
        """A failure without the paths of this machine, fit for a table."""
        for path, word in ((self.work, "WORK"), (self.rust_doc, "SRC"), (CHECKOUT, ".")):
            text = text.replace(str(path), word)
        return text.replace("|", "/")


def differences(source: Path, restored: Path, env: Mapping[str, str], *more: str) -> list[str]:
    """What rsync would still have to do to make `restored` the same as `source`, content read on both sides. more: its options."""
    command = ["rsync", "-aHni", "--checksum", "--delete", *more, f"{source}/", f"{restored}/"]
    return subprocess.run(command, env=dict(env), capture_output=True, text=True, check=True).stdout.splitlines()
