"""The store of a tree that is not in its `.mirror/`: how the live folder finds it, and how it tells whose it is.

`.mirror/store.json` in the live folder is created once, after the store, and names it: the uuid of its `mirror.json` and its URL.
That URL is a hint, a store may be moved and then named with --store; the uuid decides. In the store `mirror.json` has the member
`live`, host and path of the live folder, so that a second tree is refused and that a run which died between the two goes on.

    join("/srv/www", "s3://bucket/history", uuid)
    named_by("/srv/www")  # Pointer(uuid="3f…", url="s3://bucket/history")
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

from mirror.envelope import check_format, sealed_json, unsealed_json
from mirror.errors import DamageError, NotFound, TargetMissingError, UsageError
from mirror.keys import STORE, STORE_KEY
from mirror.store import StoreSpec
from mirror.store.fs import TEMPORARY, FolderStore
from mirror.store.open import normalise_url

_LARGEST = 1 << 20
_UUID = re.compile(r"[0-9a-f]{32}")


class Pointer(NamedTuple):
    """What a live folder says of its store: the uuid of the target, and where it was when the tree was made."""

    uuid: str
    url: str


def here(live: str) -> dict[str, str]:
    """This live folder, as `mirror.json` in its store has it."""
    return {"host": os.uname().nodename, "path": os.path.realpath(live)}


def named_by(live: str) -> Pointer | None:
    """What `.mirror/store.json` of a live folder says; None where there is none. DamageError when it is spoilt."""
    store = FolderStore(os.path.join(live, STORE))
    where = f"{store.url}/{STORE_KEY}"
    try:
        body = unsealed_json(store.get(STORE_KEY, _LARGEST), where)
        check_format(body, where)
        uuid, url = body.get("uuid"), body.get("url")
        if not (isinstance(uuid, str) and _UUID.fullmatch(uuid) and isinstance(url, str) and url):
            raise DamageError("cannot use", where=where, why="a member is missing, or not spelt as it is")
        return Pointer(uuid, url)
    except (NotFound, TargetMissingError):
        return None
    except DamageError as error:
        error.hint = "bring it back from a copy; or remove it, and name the store with --store"
        raise


def on_web(store: StoreSpec, apart: StoreSpec, packed: bool) -> list[tuple[StoreSpec, str]]:
    """(store, URL of the live place or empty) that the URL of a web server may mean, in the order in which to look: of a tree's
    files, of a packed target (first, where it was `packed` before), or of a tree's own store. apart: a store named for it."""
    url, end = store.url, f"/{STORE}"
    if apart.url:
        return [(replace(apart, url=normalise_url(apart.url)), url)]
    inside, itself = (replace(store, url=url + end), url), (store, url.removesuffix(end) if url.endswith(end) else "")
    return [itself, inside] if packed or itself[1] else [inside, itself]


def is_bare(live: str) -> bool:
    """Whether a live folder holds nothing but what is ours."""
    try:
        with os.scandir(live) as entries:
            return all(entry.name in (STORE, "lost+found") for entry in entries)
    except FileNotFoundError:
        return True


def join(live: str, url: str, uuid: str) -> None:
    """Write `.mirror/store.json`, durably. May be said again. UsageError when it names another target by now."""
    store = FolderStore(os.path.join(live, STORE))
    store.create(STORE_KEY, sealed_json({"format": 1, "uuid": uuid, "url": url}))
    with suppress(OSError):
        os.rmdir(os.path.join(store.root, TEMPORARY))  # this is no store: nothing else is created here
    found = named_by(live)
    if found is None or found.uuid != uuid:
        raise _other(live, url, "another run has just made it the tree of another store")


def check_named(live: str, url: str, pointer: Pointer, info: dict[str, Any] | None, writes: bool) -> None:
    """A tree that knows its store: whether what is at `url` is that. TargetMissingError, UsageError."""
    if info is None:
        raise TargetMissingError(
            "cannot find the store of",
            where=live,
            why=f"there is no mirror.json at {url}",
            hint="is it mounted? if it was moved, name it with --store",
        )
    if info["uuid"] != pointer.uuid:
        why = f"its store.json names the store with uuid {pointer.uuid}, at {url} is another one ({info['uuid']})"
        raise UsageError("cannot use the target", where=live, why=why, hint="which one is it? name it with --store")
    known = info.get("live")
    place = known.get("path") if isinstance(known, dict) and known.get("host") == os.uname().nodename else None
    if writes and isinstance(place, str) and place != os.path.realpath(live) and _is_another(place, live, pointer):
        raise _other(live, url, f"the tree of that store is {place}, of which this is a copy")


def check_unnamed(live: str, url: str, info: dict[str, Any], *, has_log: bool, writes: bool, anew: bool) -> None:
    """A folder that does not name its store, and a store that is there: whether they belong together. A reader may look, into a
    store that had a tree elsewhere. anew: the live folder may be made once more. UsageError, TargetMissingError."""
    known = info.get("live")
    if not isinstance(known, dict) or not isinstance(known.get("path"), str):
        raise _other(live, url, "it is the store of another tree")
    if not writes:
        return
    if known != here(live):
        raise _other(live, url, f"it is the store of the tree {known['path']} on {known.get('host')}")
    if has_log and not anew:
        raise TargetMissingError(
            "cannot find the tree",
            where=live,
            why=f"its store {url} has snapshots, and there is no {STORE}/{STORE_KEY}",
            hint="is the live folder mounted? to fill it anew say --new-target",
        )


def check_apart(live: str, store: str) -> None:
    """UsageError when a store is in a live folder, or the reverse: it would be served, or taken for the site."""
    if "://" in store:
        return
    a, b = (os.path.realpath(path).rstrip("/") + "/" for path in (live, store))
    if a.startswith(b) or b.startswith(a):
        why = "the store must lie outside the live folder, and not around it"
        raise UsageError("cannot keep the store of a tree in", where=store, why=why, hint=f"without --store it is in {STORE}/")


def _is_another(place: str, live: str, pointer: Pointer) -> bool:
    """Whether the live folder that a store knows is still there, and not the one that is asked about."""
    try:
        found = named_by(place)
        return found is not None and found.uuid == pointer.uuid and not os.path.samefile(place, live)
    except (DamageError, OSError):
        return False


def _other(live: str, url: str, why: str) -> UsageError:
    return UsageError(f"cannot use the store {url} for", where=live, why=why, hint="give each tree a store of its own")
