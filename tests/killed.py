"""`python tests/killed.py K OUT ARGUMENTS…`: the command `mirror ARGUMENTS` that kills itself (SIGKILL) just before its K-th change
of a file system, or runs to its end (K = 0) and writes how many changes there were to the file OUT.

Where a target is in a bucket, its changes are counted instead: before and after each request that makes one.

Nothing of the program is replaced. Python's audit events tell of each rename, link, removal, new file and new folder; the renames
that exchange names go through the C library, so calls of the one function that does them are counted by a profiler.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import Any

EVENTS = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod", "os.utime"}
FUNCTIONS = {("live.py", "rename_noting")}
# Each of these sends one request that changes a bucket.
REQUESTS = {
    ("s3.py", "create"), ("s3.py", "put_hint"), ("bucket_writing.py", "_put_whole"), ("bucket_writing.py", "move"),
    ("bucket_writing.py", "_complete"), ("bucket_writing.py", "act"), ("bucket_writing.py", "remove"),
}  # fmt: skip


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
        code = frame.f_code
        if event in ("call", "return") and (os.path.basename(code.co_filename), code.co_name) in FUNCTIONS | REQUESTS:
            self.step()


def run_killed(last: int, count: Path, *words: object, ends: tuple[int, ...] = (0,)) -> int:
    """Run a command that dies before its `last` change (0: lives); how many changes it made, 0 when it died. count: a file for
    that. ends: exit codes that it may end with where it lives."""
    count.unlink(missing_ok=True)
    command = [sys.executable, __file__, str(last), str(count), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode in ((*ends, -signal.SIGKILL) if last else ends), (done.returncode, done.stderr)
    return int(count.read_text()) if count.exists() else 0


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from mirror.cli import main

    counter = Counter(int(sys.argv[1]))
    out = sys.argv[2]
    if not any(word.startswith("s3://") for word in sys.argv[3:]):
        sys.addaudithook(counter.audit)
    sys.setprofile(counter.profile)
    threading.setprofile(counter.profile)
    sys.argv[1:] = sys.argv[3:]
    code = 1
    try:
        code = main()
    finally:
        sys.setprofile(None)
        Path(out).write_text(str(counter.count))
    sys.exit(code)
