"""Run one command and measure it: wall time, CPU, exit code, and, if asked, the peak memory of its whole process tree.

Memory is PSS, summed over the tree every 50 ms: pages that several processes share count once, so that workers are neither
free nor charged twice for the interpreter. The page cache does not count; a mapped file does. Of a server that
runs beside its clients it is RSS: what it shares with them counts in full. Linux only.
"""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

SAMPLE_SECONDS = 0.05
TAIL_BYTES = 4096
_PSS = re.compile(rb"^Pss:\s+(\d+) kB", re.MULTILINE)
_RSS = re.compile(rb"^Rss:\s+(\d+) kB", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Run:
    """One finished command. code: exit code, negative for a signal; tail: the end of its output; peak_bytes: 0 if not asked."""

    seconds: float
    cpu_seconds: float
    code: int
    tail: str
    peak_bytes: int = 0

    @property
    def last_line(self) -> str:
        """The last line printed that says something."""
        lines = [line.strip() for line in re.split(r"[\r\n]+", self.tail) if line.strip()]
        return lines[-1] if lines else ""


def run(command: Sequence[str], *, env: Mapping[str, str], cwd: Path, output: Path, memory: bool = False) -> Run:
    """Run a command to its end; `output` (a file) gets all that it prints. CPU includes every descendant that was waited for."""
    with open(output, "wb") as sink:
        began = time.perf_counter()
        child = subprocess.Popen(
            command, env=dict(env), cwd=cwd, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink, start_new_session=True
        )
        sampler = MemorySampler(child.pid) if memory else None
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    peak = sampler.stop() if sampler else 0
    tail = output.read_bytes()[-TAIL_BYTES:].decode(errors="replace")
    return Run(seconds, usage.ru_utime + usage.ru_stime, child.returncode, tail, peak)


class MemorySampler:
    """Samples the tree below (and with) a process in a thread until stopped.

    The tree is the session that the process leads plus all its descendants: workers whose parent is gone still count.
    """

    def __init__(self, root: int, of_process: Callable[[int], int] | None = None) -> None:
        """of_process: the bytes of one process, `pss` unless said."""
        self._root, self._of_process = root, of_process or pss
        self._stop = threading.Event()
        self._peak = 0
        self._thread = threading.Thread(target=self._loop, name="memory-sampler", daemon=True)
        self._thread.start()

    def stop(self) -> int:
        """End sampling; the peak in bytes."""
        self._stop.set()
        self._thread.join()
        return self._peak

    def _loop(self) -> None:
        while True:
            self._peak = max(self._peak, sum(map(self._of_process, tree(self._root))))
            if self._stop.wait(SAMPLE_SECONDS):
                return


def tree(root: int) -> list[int]:
    """The process, its descendants, and whatever runs in the session it leads."""
    parents: dict[int, int] = {}
    found: set[int] = set()
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()  # the command in brackets may hold anything
        except OSError:
            continue
        parents[int(name)] = int(fields[1])
        if int(name) == root or int(fields[3]) == root:
            found.add(int(name))
    grew = True
    while grew:
        more = {child for child, parent in parents.items() if parent in found} - found
        grew = bool(more)
        found |= more
    return sorted(found)


def pss(process: int) -> int:
    """The proportional memory of one process in bytes; 0 if it is gone."""
    return _rolled_up(process, _PSS)


def rss(process: int) -> int:
    """The memory of one process in bytes, what it shares with others included; 0 if it is gone."""
    return _rolled_up(process, _RSS)


def _rolled_up(process: int, line: re.Pattern[bytes]) -> int:
    try:
        with open(f"/proc/{process}/smaps_rollup", "rb") as file:
            match = line.search(file.read())
    except OSError:
        return 0
    return int(match[1]) * 1024 if match else 0


def tree_bytes(folder: Path) -> int:
    """The sum of the sizes of all files below a folder."""
    return sum((Path(where) / name).lstat().st_size for where, _, names in os.walk(folder) for name in names)


def disk_bytes(folder: Path) -> int:
    """What a folder and all below it take on disk, in allocated blocks."""
    total = 0
    for where, folders, names in os.walk(folder):
        total += sum((Path(where) / name).lstat().st_blocks for name in [*folders, *names])
    return total * 512


def warm(folder: Path) -> None:
    """Read every file once, before each command that reads them: borg has the kernel forget what it has read (posix_fadvise), and
    whoever came after it paid for that: our full copy took 6.5 s instead of 4.3."""
    for where, _, names in os.walk(folder):
        for name in names:
            path = Path(where) / name
            if path.is_symlink():
                continue
            with open(path, "rb", buffering=0) as file:
                while file.read(1 << 20):
                    pass
