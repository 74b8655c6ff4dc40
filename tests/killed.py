"""`python tests/killed.py K OUT ARGUMENTS…`: the command `mirror ARGUMENTS` that kills itself (SIGKILL) just before its K-th change
of a file system, or runs to its end (K = 0) and writes how many changes there were to the file OUT.

Nothing of the program is replaced. Python's audit events tell of each rename, link, removal, new file and new folder; the renames
that exchange names go through the C library, so calls of the one function that does them are counted by a profiler.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Any

EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod", "os.utime"}
FUNCTIONS = {"rename_noting"}


class Counter:
    """Counts what happens below one folder or relative to an open one; a cache elsewhere does not count."""

    def __init__(self, last: int) -> None:
        self.last, self.count = last, 0

    def step(self) -> None:
        self.count += 1
        if self.count == self.last:
            os.kill(os.getpid(), signal.SIGKILL)

    def audit(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event in EVENTS or (event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_CREAT):
            self.step()

    def profile(self, frame: FrameType, event: str, argument: object) -> None:
        if event in ("call", "return") and frame.f_code.co_name in FUNCTIONS:
            self.step()


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from mirror.cli import main

    counter = Counter(int(sys.argv[1]))
    out = sys.argv[2]
    sys.addaudithook(counter.audit)
    sys.setprofile(counter.profile)
    sys.argv[1:] = sys.argv[3:]
    try:
        main()
    finally:
        sys.setprofile(None)
        Path(out).write_text(str(counter.count))
