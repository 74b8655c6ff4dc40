"""What this host has to do with targets: which it knows by their URLs, and that one run at a time uses each.

A host that has mirrored into a place, and finds nothing there, is rather looking at a disk that is not mounted. Locks are flocks:
gone with their process, so never stale.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from contextlib import ExitStack, suppress
from pathlib import Path

from blake3 import blake3

from mirror.errors import InTheWayError
from mirror.store.errnos import error_for


def _url_file(cache: Path, url: str) -> Path:
    name = blake3(url.encode("utf-8", "surrogateescape")).hexdigest(16)
    return cache / "urls" / f"{name}.json"


def known_at(cache: Path | None, url: str) -> dict[str, str]:
    """What this host remembers of a target: its `uuid` and `layout`; nothing when it knows none there."""
    try:
        found = json.loads(_url_file(cache, url).read_text()) if cache else {}
        return {"uuid": str(found["uuid"]), "layout": str(found.get("layout", ""))} if found else {}
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return {}


def remember_at(cache: Path, url: str, uuid: str, layout: str) -> None:
    """Remember a target."""
    known = {"uuid": uuid, "layout": layout}
    if known_at(cache, url) == known:
        return
    path = _url_file(cache, url)
    with suppress(OSError):  # somebody else's cache folder, or a full one: then this host does not know the target next time
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps({"url": url, **known}))
        temporary.replace(path)


def lock_target(stack: ExitStack, local: Path | None, folder: Path | None, url: str, wait: bool) -> None:
    """flock the target's folder itself when it is local, else a file in its folder of the cache, if it has one. InTheWayError
    unless this run is to wait."""
    if local is not None:
        path, flags = local, os.O_RDONLY | os.O_DIRECTORY
    elif folder is not None:
        path, flags = folder / "lock", os.O_RDWR | os.O_CREAT
    else:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path, flags | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if local is None:
            return  # the cache is somebody else's: a store needs no lock
        raise error_for(error, "cannot lock the target", url) from error
    stack.callback(os.close, descriptor)
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if not wait:
                raise InTheWayError(
                    "cannot start",
                    where=url,
                    why="another run on this host is using the target",
                    hint="wait for it, or say --wait",
                ) from None
            time.sleep(0.2)
        except OSError:
            return  # a network filesystem without locks: then two runs meet at the log
