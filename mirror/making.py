"""Making targets: `mirror.json`, what a new one says of itself, and when a verb may make one at all.

    read_info(store)                 # what the mirror.json of a store says, None where there is none
    make(store, tree, live, Making("tree", "www"), known=False, dry_run=False)

A place that holds other things is not taken over unasked, and one that held a target is not filled anew: its disk may not be
mounted (DESIGN section 7).
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mirror import elsewhere
from mirror.chunking import AVERAGES, LIMITS
from mirror.envelope import check_format, sealed_json, unsealed_json, write_time
from mirror.errors import DamageError, MirrorError, NotFound, TargetMissingError, UsageError
from mirror.keys import LOG_PREFIX, MIRROR_KEY, STORE, is_site_name, record_key
from mirror.site import SiteSpec
from mirror.site.open import names_in
from mirror.store import MaintainedStore
from mirror.store.errnos import error_for
from mirror.store.open import folder_of, is_folder_url, is_web_url

PACKED, TREE = "packed", "tree"
_UUID = re.compile(r"[0-9a-f]{32}")
_OWN = ("log", "packs", "index", "manifests", "mirror.json", "latest.json")


@dataclass(frozen=True, slots=True)
class Making:
    """What a verb may do about a target that is not there. layout "": `default_layout`. adopt: take over a place that holds other
    things; new_target: make it although this host knew one here, or mirror.toml has it. named: the mirror of mirror.toml whose
    target it is, which is not made without being asked for. command: how to name this run in hints."""

    layout: str = ""
    site: str = ""
    adopt: bool = False
    new_target: bool = False
    named: str = ""
    command: str = "mirror sync"


def default_layout(url: str) -> str:
    """The layout of a new target at a URL for which nobody asked for one: a tree where one can be, else packed.

    >>> default_layout("/srv/mirror of nothing"), default_layout("memory://x")
    ('tree', 'packed')
    """
    if not can_hold_tree(url):
        return PACKED
    # What is left of a packed target that lost its mirror.json is damage, not a site to put a tree over.
    return PACKED if is_folder_url(url) and os.path.lexists(folder_of(url) / record_key(1)) else TREE


def can_hold_tree(url: str) -> bool:
    """Whether the files of a site can stand under their own names at a URL, and be changed one by one in order."""
    return is_folder_url(url) or url.startswith("s3://")


def read_info(store: MaintainedStore) -> dict[str, Any] | None:
    """`mirror.json`, or None where there is none. A spoilt one is damage, not "no mirror"."""
    where = f"{store.url}/{MIRROR_KEY}"
    try:
        data = store.get(MIRROR_KEY, 1 << 20)
    except NotFound:
        return None
    except TargetMissingError:
        if is_folder_url(store.url):
            return None  # no folder yet is no mirror yet; a bucket that is missing is somebody's mistake
        raise
    try:
        info = unsealed_json(data, where)
        check_format(info, where)
        if not all(isinstance(info.get(name), str) for name in ("uuid", "layout", "site", "ids")):
            raise DamageError("cannot use", where=where, why="a member is missing")
        if not _UUID.fullmatch(info["uuid"]) or not is_site_name(info["site"]):  # the uuid names a folder of this host's cache
            raise DamageError("cannot use", where=where, why="its uuid or its site is not spelt as those are")
    except DamageError as error:
        error.hint = "bring mirror.json back from a copy of this target"
        raise
    if info["ids"] != "blake3" or info["layout"] not in (PACKED, TREE):
        raise UsageError(
            "cannot use the target",
            where=store.url,
            why=f"its layout {info['layout']!r} with ids {info['ids']!r} is not known here",
            hint="use a newer mirror",
            kind="newer-format",
        )
    return info


def new_info(layout: str, site: str) -> dict[str, Any]:
    """The members of a new `mirror.json`."""
    return {
        "format": 1,
        "uuid": os.urandom(16).hex(),
        "layout": layout,
        "site": site,
        "ids": "blake3",
        "chunking": {"kind": "fastcdc-2020", "normalization": 1, "seed": 0, "averages": list(AVERAGES), "limits": list(LIMITS)},
        "features": {"read": [], "write": [], "prune": []},
        "created": write_time(datetime.now(UTC)),
    }


def make(store: MaintainedStore, tree: str, live: SiteSpec, making: Making | None, *, known: bool, dry_run: bool) -> dict[str, Any]:
    """Make a target that is not there, if that may be: its `mirror.json`. tree: its live place, empty for layout packed; live: that
    as a site; known: this host has mirrored into it. TargetMissingError, UsageError, DamageError for a place that is none."""
    url = tree or store.url
    if known and not (making and making.new_target):
        raise TargetMissingError(
            "cannot find the target",
            where=url,
            why="this host has mirrored into it, and its mirror.json is gone",
            hint="is it mounted?" + (" to begin a new one there say --new-target" if making else ""),
        )
    if making is None:
        hint = "check the path, or make one with `mirror init`"
        if is_web_url(url):
            hint = "check the URL; the store of a tree whose .mirror is hidden, as it should be, is named with --store"
        raise TargetMissingError("cannot find a mirror at", where=url, why="there is no mirror.json", hint=hint)
    if making.named and not making.new_target:
        hint = f"is it mounted? the first time, have it made: {making.command} --new-target"
        why = f"there is no mirror.json, and the mirror {making.named} of mirror.toml is kept there"
        raise TargetMissingError("cannot find the target", where=url, why=why, hint=hint)
    _check_making(making, url, tree)
    if is_web_url(url):
        hint = f"make it there: mirror init ROOT/{url.rpartition('/')[2]}"
        raise UsageError("cannot make the target", where=url, why="it is on another machine", hint=hint)
    others = _other_things(store, tree, live)
    if others and (made := read_info(store)):
        return made  # by another run, since we looked
    if any(key.startswith(LOG_PREFIX) for key in others):
        raise DamageError(
            "cannot use the target",
            where=url,
            why="it has a log but no mirror.json",
            hint="bring mirror.json back from a copy of this target",
        )
    if others and not making.adopt:
        hint = "name an empty place, or say --adopt to put the mirror beside them"
        if tree:
            hint = "name an empty folder, or say --adopt: then equal files stay, others in the site's way are kept aside"
        raise UsageError("cannot make the target", where=url, why=f"it holds other things ({', '.join(others[:3])})", hint=hint)
    info = new_info(making.layout, making.site or "site")
    if tree and store.url != os.path.join(tree, STORE):
        info["live"] = elsewhere.here(tree)
    if dry_run:
        return info
    if tree and is_folder_url(tree):
        make_folder(tree)
    store.create(MIRROR_KEY, sealed_json(info))
    if store.create(MIRROR_KEY, b"{}"):
        raise UsageError(
            "cannot keep a mirror in",
            where=url,
            why="the service overwrites objects although it was asked not to (If-None-Match)",
            hint="its mirror.json is spoilt now: empty the place, and use a service with conditional writes",
        )
    made = read_info(store)  # two runs may have made it at once: what is there counts
    if made is None:
        raise MirrorError("cannot make the target", where=url, why="mirror.json was written and is not there")
    return made


def _check_making(making: Making, url: str, tree: str) -> None:
    """UsageError when a new target cannot be made as it is asked for."""
    what, layouts = "cannot make the target", "say --layout tree (the site's files under their own names) or --layout packed"
    if making.layout not in (PACKED, TREE):
        raise UsageError(what, where=url, why=f"layout {making.layout!r} does not exist", hint=layouts)
    if making.layout == TREE and not tree:
        hint = "say --layout packed, or name a folder or an s3:// prefix"
        raise UsageError(what, where=url, why="layout 'tree' needs a local folder or an S3 prefix", hint=hint)
    if making.site and not is_site_name(making.site):
        why, hint = f"{making.site!r} is no site name", "lower-case letters, digits, dots and hyphens"
        raise UsageError(what, where=url, why=why, hint=hint)


def make_folder(tree: str) -> None:
    """The live folder, unless it is there. What is above it must be: else a disk is not mounted."""
    try:
        os.mkdir(tree)
    except FileExistsError:
        return
    except FileNotFoundError:
        raise TargetMissingError(
            "cannot make the target",
            where=tree,
            why=f"there is no folder {os.path.dirname(tree)} to make it in",
            hint="is it mounted? else make that folder first",
        ) from None
    except OSError as error:
        raise error_for(error, "cannot make the target", tree) from error


def _other_things(store: MaintainedStore, tree: str, live: SiteSpec) -> list[str]:
    """What a place holds that is to become a target; folders of a store with a slash."""
    found = []
    if tree and not is_folder_url(tree):
        return [name for name in names_in(live) if name != f"{STORE}/"] + _other_things(store, "", live)
    if tree:
        try:
            found = sorted(name for name in os.listdir(tree) if name not in (STORE, "lost+found"))
        except FileNotFoundError:
            pass
        except NotADirectoryError as error:
            raise UsageError("cannot make the target", where=tree, why="it is not a folder") from error
        return found + _other_things(store, "", live)
    if is_folder_url(store.url):
        folder = folder_of(store.url)
        try:
            found = sorted(
                f"{n}/" if n in _OWN and n != MIRROR_KEY else n for n in os.listdir(folder) if not n.startswith(".mirror-tmp")
            )
        except FileNotFoundError:
            return []
        except NotADirectoryError as error:
            raise UsageError("cannot make the target", where=store.url, why="it is not a folder") from error
        return [n for n in found if n != "lost+found"]
    for stat in store.list(""):
        found.append(stat.key)
        if len(found) >= 10:
            break
    return found
