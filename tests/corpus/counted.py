"""Runs a command and writes, as JSON, what it and all its processes read and wrote: `counted.py FILE COMMAND …`. Linux.

/proc/self/io of a process includes every child that it has waited for. Children that the command leaves behind become ours
(subreaper), so that workers which outlive their parent count too. Our own share is the start of this interpreter.
"""

import contextlib
import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36


def main() -> int:
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")
    code = subprocess.run(sys.argv[2:], check=False).returncode
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
    lines = Path("/proc/self/io").read_text().splitlines()
    Path(sys.argv[1]).write_text(json.dumps({name: int(value) for name, value in (line.split(": ") for line in lines)}))
    return code


if __name__ == "__main__":
    sys.exit(main())
