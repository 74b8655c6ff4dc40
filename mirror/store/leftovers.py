"""Temporary names: whose they are, and whether their writer is gone. For stores that stage an object under such a name first.

A name is `HOST-PID-RANDOM`, HOST standing for a host and its process ids.

>>> is_abandoned(temporary_name(), 0.0), is_abandoned("00000000-1-strange", 10.0)
(False, False)
"""

from __future__ import annotations

import os
import zlib
from functools import cache

DAY = 86_400


def temporary_name() -> str:
    """A name that nobody else uses, telling which process of which host does."""
    return f"{_host()}-{os.getpid()}-{os.urandom(8).hex()}"


def is_abandoned(name: str, age_seconds: float) -> bool:
    """Whether nobody will finish what has this name: it is older than a day, or a process of this host that is gone wrote it."""
    if age_seconds > DAY:
        return True
    host, _, rest = name.partition("-")
    pid = rest.partition("-")[0]
    return host == _host() and pid.isdecimal() and not _alive(int(pid))


@cache
def _host() -> str:
    """This host and process-id namespace: a process id means nothing in another container."""
    try:
        space = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        space = 0
    return f"{zlib.crc32(f'{os.uname().nodename} {space}'.encode()):08x}"


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True
