"""How the corpus tests call mirror and other tools: as a person would, in processes of their own, in an empty home."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import blake3
import xxhash

CHECKOUT = Path(__file__).resolve().parents[2]
COUNTED = Path(__file__).with_name("counted.py")
# What checks a SUM file of each kind, run in the folder that it lists. rclone comes with the test extra, the others with Debian
# (packages b3sum and xxhash); where one is missing, the library of the same hash checks in its place.
CHECKERS = {
    "sha256": ["rclone", "checksum", "sha256", "{sums}", "."],
    "blake3": ["b3sum", "--quiet", "-c", "{sums}"],
    "xxh128": ["xxhsum", "--quiet", "-c", "{sums}"],
}
LIBRARIES = {"blake3": blake3.blake3, "xxh128": xxhash.xxh3_128}


@dataclass(frozen=True, slots=True)
class Io:
    """What a command and all its processes asked of the kernel to read and to write, in bytes; pipes and modules included."""

    read: int
    written: int


@dataclass(frozen=True, slots=True)
class Mirror:
    """The command `mirror` of this checkout, on one target. options: such as --endpoint-url; home: empty at first."""

    target: str
    home: Path
    options: tuple[str, ...] = ()
    more_env: Mapping[str, str] | None = None

    @property
    def env(self) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("MIRROR_", "AWS_", "XDG_", "RCLONE_"))}
        path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", os.defpath)])
        return {**kept, "PATH": path, "HOME": str(self.home), "PYTHONPATH": str(CHECKOUT), **(self.more_env or {})}

    def command(self, *words: str | Path) -> list[str]:
        return [sys.executable, "-m", "mirror", *map(str, words), *self.options]

    def run(self, *words: str | Path) -> str:
        """Run a verb to its end; its standard output. It must exit with 0."""
        return checked(self.command(*words), env=self.env, cwd=CHECKOUT)

    def events(self, *words: str | Path) -> list[dict[str, Any]]:
        """Run a verb with --json: its events, the summary last."""
        return parsed(self.run(*words, "--json"))

    def sync(self, source: Path) -> tuple[int, dict[str, Any]]:
        """Sync; the number of the new snapshot, 0 if none was made, and the summary."""
        events = self.events("sync", source, self.target, "--layout", "packed")
        made = [event["snapshot"] for event in events if event["event"] == "snapshot"]
        return (made[-1] if made else 0), events[-1]

    def counted_sync(self, source: Path, count: Path) -> tuple[dict[str, Any], Io]:
        """Sync in a wrapper that counts what all its processes read and write; the summary and the counts."""
        sync = self.command("sync", source, self.target, "--layout", "packed", "--json")
        events = parsed(checked([sys.executable, str(COUNTED), str(count), *sync], env=self.env, cwd=CHECKOUT))
        counts = json.loads(count.read_text())
        return events[-1], Io(counts["rchar"], counts["wchar"])

    def restore(self, out: Path, snapshot: int = 0) -> Path:
        """Restore the newest snapshot, or one by its number, into a fresh folder."""
        shutil.rmtree(out, ignore_errors=True)
        self.run("restore", self.target, out, *(["--at", str(snapshot)] if snapshot else []))
        return out

    def sums(self, hash_name: str, file: Path) -> Path:
        """Write the SUM file of the newest snapshot."""
        file.write_text(self.run("sums", self.target, "--hash", hash_name))
        return file


def parsed(lines: str) -> list[dict[str, Any]]:
    """JSON Lines; the last must be the summary."""
    events = [json.loads(line) for line in lines.splitlines()]
    assert events, "--json printed nothing"
    assert events[-1]["event"] == "summary", events[-1]
    return events


def checked(command: Sequence[str | Path], *, env: Mapping[str, str], cwd: Path) -> str:
    """Standard output of a command that must exit with 0."""
    run = subprocess.run(command, env=dict(env), cwd=cwd, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert run.returncode == 0, f"exit {run.returncode}: {' '.join(map(str, command))}\n{run.stdout[-3000:]}\n{run.stderr[-3000:]}"
    return run.stdout


def differences(wanted: Path, got: Path) -> str:
    """What rsync would still change in `got`: content by checksum, type, times, modes, owners, links, extra files; "" is none."""
    return checked(["rsync", "-aHni", "--checksum", "--delete", f"{wanted}/", f"{got}/"], env=os.environ, cwd=CHECKOUT)


def plain_files(folder: Path) -> list[Path]:
    """Every regular file below a folder."""
    found = [Path(where) / name for where, _, names in os.walk(folder) for name in names]
    return [path for path in found if path.is_file() and not path.is_symlink()]


def assert_sums_pass(hash_name: str, sums: Path, source: Path) -> None:
    """The SUM file names every regular file of the source, and the hash's usual tool agrees with each line."""
    lines = sums.read_text().splitlines()
    named = {line.partition("  ")[2] for line in lines}
    assert named == {str(path.relative_to(source)) for path in plain_files(source)}
    assert len(lines) == len(named)
    command = CHECKERS[hash_name]
    if shutil.which(command[0], path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])):
        env = {**os.environ, "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
        checked([word.format(sums=sums) for word in command], env=env, cwd=source)
        return
    for line in lines:
        value, _, name = line.partition("  ")
        assert LIBRARIES[hash_name]((source / name).read_bytes()).hexdigest() == value, name
