"""What the figures were measured on and with: cores, memory, kernel, filesystem, versions. No host names, no paths."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

_VERSION = {
    "cp": ["cp", "--version"],
    "rsync": ["rsync", "--version"],
    "rclone": ["rclone", "version"],
    "s5cmd": ["s5cmd", "version"],
    "restic": ["restic", "version"],
    "borg": ["borg", "--version"],
    "SeaweedFS": ["weed", "version"],
    "nginx": ["nginx", "-v"],
}


def describe(work: Path) -> dict[str, str]:
    """The machine, as a table of two columns. work: a folder on the disk that is measured."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": str(len(os.sched_getaffinity(0))),
        "processor": _processor(),
        "memory": f"{memory / 2**30:.0f} GiB",
        "kernel": platform.release(),
        "filesystem": _filesystem(work),
        "Python": platform.python_version(),
    }


def versions(ours: list[str], env: Mapping[str, str]) -> dict[str, str]:
    """The first version number that each tool tells; "not installed" where there is none. ours: our command, [] if not built."""
    commands = {**_VERSION, **({"mirror": [*ours, "--version"]} if ours else {})}
    return {name: _version(command, env) for name, command in commands.items()}


def _version(command: list[str], env: Mapping[str, str]) -> str:
    if not shutil.which(command[0], path=env["PATH"]):
        return "not installed"
    run = subprocess.run(command, env=dict(env), capture_output=True, text=True, timeout=60, check=False)
    match = re.search(r"\d+(\.\d+)+", run.stdout) or re.search(r"\d+(\.\d+)+", run.stderr)
    return match[0] if match else "unknown"


def _processor() -> str:
    match = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return match[1] if match else platform.machine()


def _filesystem(folder: Path) -> str:
    """The type of the filesystem that holds a folder: the longest mount point above it."""
    best = ("", "unknown")
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, point, kind, *_ = line.split()
        if folder.is_relative_to(point) and len(point) >= len(best[0]):
            best = (point, kind)
    return best[1]
