"""Targets: what a mirror lives in. From a URL to an open store with its `mirror.json`, its local state and its lock.

Owns `mirror.json`, the rules for making and recognising a target (DESIGN section 7), and what this host knows of targets by URL.
"""

from __future__ import annotations

import os
import re
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mirror import elsewhere
from mirror.chunking import AVERAGES, LIMITS
from mirror.envelope import check_format, sealed_json, unsealed_json, write_time
from mirror.errors import AuthError, DamageError, MirrorError, NotFound, TargetMissingError, UsageError
from mirror.hosts import known_at, lock_target, remember_at
from mirror.keys import LOG_PREFIX, MIRROR_KEY, STORE, STORE_KEY, is_site_name, record_key
from mirror.site import SiteSpec
from mirror.site.open import names_in
from mirror.state import State, open_state
from mirror.store import MaintainedStore, StoreSpec
from mirror.store.errnos import error_for
from mirror.store.open import normalise_url, open_store
from mirror.store.wrap import CountingStore

PACKED, TREE = "packed", "tree"
_CLIENTS = "clients"
_UUID = re.compile(r"[0-9a-f]{32}")
_OWN = ("log", "packs", "index", "manifests", "mirror.json", "latest.json")


@dataclass(frozen=True, slots=True)
class TargetSpec:
    """How to reach a target: its store, and the cache folder of this host (None: keep nothing). apart: how the store of a tree is
    reached that is not in its `.mirror/`; its url is empty when nobody named it, then the live folder does."""

    store: StoreSpec
    cache: Path | None = None
    apart: StoreSpec = StoreSpec("")


@dataclass
class Target:
    """An open target. Close it (or use it as a context manager): that gives the lock and the state back. spec: of the store itself;
    tree: path of the live folder, or URL of the live prefix; empty for layout packed."""

    spec: TargetSpec
    store: CountingStore
    info: dict[str, Any]
    state: State
    new: bool = False  # not there before this run (and still not there in a dry run)
    tree: str = ""
    _exit: ExitStack = field(default_factory=ExitStack)

    @property
    def url(self) -> str:
        return self.tree or self.store.url

    @property
    def in_bucket(self) -> bool:
        """Whether it is a tree whose live place is in a bucket."""
        return bool(self.tree) and not is_folder_url(self.tree) and not self.is_received

    @property
    def is_received(self) -> bool:
        """Whether it is a tree that a `mirror serve` holds and publishes."""
        return bool(self.tree) and is_web_url(self.tree) and bool(self.spec.store.key_file)

    @property
    def live(self) -> SiteSpec:
        """The live place of a tree as a site."""
        return live_spec(self.spec.store, self.tree)

    @property
    def uuid(self) -> str:
        return str(self.info["uuid"])

    @property
    def is_apart(self) -> bool:
        """Whether this is a tree whose store is elsewhere."""
        return bool(self.tree) and not self.is_received and self.store.url != os.path.join(self.tree, STORE)

    def free_bytes(self) -> tuple[int, int] | None:
        """(free, total) bytes where new content is written; None where the place does not know."""
        return (open_store(StoreSpec(self.tree)) if self.is_apart else self.store).free_bytes()

    @property
    def site(self) -> str:
        return str(self.info["site"])

    def __enter__(self) -> Target:
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()


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


def is_folder_url(url: str) -> bool:
    """Whether a URL means a local folder."""
    return "://" not in url or url.startswith("file://")


def is_web_url(url: str) -> bool:
    """Whether a URL means files behind a web server."""
    return url.startswith(("http://", "https://"))


def _is_only_read(store: StoreSpec) -> bool:
    """Whether this is a place behind a web server, and no `mirror serve`."""
    return is_web_url(store.url) and not store.key_file


def folder_of(url: str) -> Path:
    """The absolute path behind a folder's URL."""
    return Path(os.path.abspath(url.removeprefix("file://")))


def open_target(
    spec: TargetSpec, *, lock: bool = False, wait: bool = False, making: Making | None = None, dry_run: bool = False
) -> Target:
    """Open the target, making it first when `making` allows that.

    lock: keep other runs of this host out (InTheWayError, or wait). TargetMissingError when there is none, UsageError when it
    may not be made or is another site's, DamageError when `mirror.json` is spoilt.
    """
    layout = (making.layout or default_layout(spec.store.url)) if making else ""
    if _is_only_read(spec.store):
        if lock or making:
            raise UsageError("cannot write to", where=spec.store.url, why="files behind a web server can only be read",
                             hint="write where they are, a folder or s3://bucket/prefix, or give the key of a `mirror serve` with "
                             "--key-file; restore, verify, diff, ls, cat, sums and snapshots can use this URL")  # fmt: skip
        spec, tree, store, info = _found_on_web(spec)
    elif spec.store.url.startswith("s3://"):
        _check_no_store(spec)
        spec, tree, store, info = _found_in_bucket(spec, layout)
    else:
        spec, tree = located(spec, layout)
        store = CountingStore(open_store(spec.store))
        info = read_info(store)
        if info is not None and info["layout"] == TREE and is_web_url(store.url):
            tree = store.url
    url = tree or store.url
    site = making.site if making else ""
    joins = _joins(tree, store, info, making)
    new = info is None
    if info is None:
        info = _make(spec, store, tree, replace(making, layout=layout) if making else None, dry_run)
    elif (info["layout"] == TREE) != bool(tree):
        raise UsageError(
            "cannot use the target",
            where=url,
            why="it is the store of a tree" if info["layout"] == TREE else f"its store says layout {info['layout']!r}",
            hint=_tree_of(store.url, info) if info["layout"] == TREE else "is it a copy of another target?",
        )
    elif site and site != info["site"]:
        raise UsageError(
            "cannot use the target",
            where=url,
            why=f"it holds the site {info['site']!r}, not {site!r}",
            hint="give each site a target of its own, or leave out --site",
        )
    elif making and making.layout and making.layout != info["layout"]:
        why = f"its layout is {info['layout']!r}, not {making.layout!r}, and stays so"
        raise UsageError("cannot use the target", where=url, why=why, hint="leave out --layout, or name another place")
    with ExitStack() as stack:
        folder = _remembered(spec, str(info["uuid"]))
        if lock and not dry_run:
            if joins:  # a tree whose store is there, and whose folder may be lost
                _make_folder(tree)
            lock_target(stack, folder_of(url) if is_folder_url(url) else None, folder, url, wait)
        if joins and not dry_run:
            elsewhere.join(tree, store.url, str(info["uuid"]))
        state = stack.enter_context(_Closing(open_state(folder if folder and (not dry_run or _is_there(folder)) else None)))
        if spec.cache and not dry_run:
            remember_at(spec.cache, url, str(info["uuid"]), str(info["layout"]))
        # It answered just now: who opens it in another process, while the server is being started again, has to be as patient.
        spec = replace(spec, store=replace(spec.store, answered=True))
        return Target(spec, store, info, state.state, new, tree, stack.pop_all())


def _remembered(spec: TargetSpec, uuid: str) -> Path | None:
    """The folder of the cache for this target. A client of `mirror serve` has one of its own: where both are run by one user, the
    server publishes while the client is at work, and a state is for one process at a time."""
    if spec.cache is None:
        return None
    return spec.cache / _CLIENTS / uuid if spec.store.key_file and is_web_url(spec.store.url) else spec.cache / uuid


def located(spec: TargetSpec, layout: str = "") -> tuple[TargetSpec, str]:
    """(how to reach the store, the live folder) of the target that a URL names; no live folder where that is the store itself.
    layout: of a target that is to be made if there is none. UsageError for a store that a target cannot have; DamageError."""
    named = normalise_url(spec.apart.url) if spec.apart.url else ""
    if _is_only_read(spec.store):
        return _found_on_web(spec)[:2]
    if not is_folder_url(spec.store.url):
        _check_no_store(spec)
        return _found_in_bucket(spec, layout)[:2] if can_hold_tree(spec.store.url) else (spec, "")
    folder = folder_of(spec.store.url)
    inside = folder / STORE
    pointer = elsewhere.named_by(str(folder))
    # Looked for first: the site of a tree may well have a mirror.json of its own, a packed target has no `.mirror/`.
    is_tree = any(os.path.lexists(inside / name) for name in (MIRROR_KEY, LOG_PREFIX))
    if is_tree:
        if pointer is not None:
            where, why = str(inside), f"it has a store, and {STORE_KEY} names another ({pointer.url})"
            raise DamageError("cannot use", where=where, why=why, hint="which one is right? move the other one out of the way")
        _check_own(named, str(inside), f"the store of that tree is in its {STORE}/")
    elif pointer is not None or named not in ("", str(inside), str(folder)):
        if layout == PACKED or (pointer is None and os.path.lexists(folder / MIRROR_KEY)):
            _check_own(named, str(folder), "a packed target is its store")
        elsewhere.check_apart(str(folder), named or str(pointer and pointer.url))
        return replace(spec, store=spec.apart if named else replace(spec.apart, url=str(pointer and pointer.url))), str(folder)
    elif layout != TREE or os.path.lexists(folder / MIRROR_KEY):
        return spec, ""
    return replace(spec, store=replace(spec.store, url=str(inside))), str(folder)


def live_spec(store: StoreSpec, tree: str) -> SiteSpec:
    """The live place of a tree as a site, reached as its store is."""
    return SiteSpec(
        tree,
        endpoint_url=store.endpoint_url,
        region=store.region,
        profile=store.profile,
        static_credentials=store.static_credentials,
        by_url=is_web_url(tree),
        key_file=store.key_file if is_web_url(tree) else "",
        insecure=store.insecure,
        proxies=store.proxies,
    )


def holds_tree(site: SiteSpec) -> bool:
    """Whether there is a tree at an S3 prefix. False as well where that cannot be found out."""
    spec = StoreSpec(
        f"{site.url}/{STORE}",
        endpoint_url=site.endpoint_url,
        region=site.region,
        profile=site.profile,
        static_credentials=site.static_credentials,
    )
    try:
        return open_store(spec).size(MIRROR_KEY) is not None
    except MirrorError:
        return False  # if it cannot be read at all, whoever scans it says why


def _found_in_bucket(spec: TargetSpec, layout: str) -> tuple[TargetSpec, str, CountingStore, dict[str, Any] | None]:
    """(how to reach the store, the live prefix, the store, its mirror.json) for an S3 prefix. The tree is looked for first, as the
    site of one may have a mirror.json of its own, unless this host knows a packed target there: that saves a request."""
    url = spec.store.url
    inside = replace(spec, store=replace(spec.store, url=f"{url}/{STORE}"))
    looks = [(inside, url), (spec, "")]
    if known_at(spec.cache, url).get("layout") == PACKED:
        looks.reverse()
    stores = {}
    for each, tree in looks:
        stores[tree] = CountingStore(open_store(each.store))
        try:
            info = read_info(stores[tree])
        except AuthError:
            if not tree:
                raise
            continue  # where a missing key is a forbidden one, rights for a packed target end at its own keys
        if info is not None:
            return each, tree, stores[tree], info
    return (inside, url, stores[url], None) if layout == TREE else (spec, "", stores[""], None)


def _found_on_web(spec: TargetSpec) -> tuple[TargetSpec, str, CountingStore, dict[str, Any] | None]:
    """(how to reach the store, the URL of the live place, the store, its mirror.json) for the URL of a web server."""
    ways = elsewhere.on_web(spec.store, spec.apart, known_at(spec.cache, spec.store.url).get("layout") == PACKED)
    stores = [CountingStore(open_store(way)) for way, _ in ways]
    for (way, tree), store in zip(ways, stores, strict=True):
        try:
            info = read_info(store)
        except AuthError:
            if store is stores[-1]:
                raise
            continue  # a `.mirror/` should not be open to all
        if info is not None:
            return replace(spec, store=way), tree, store, info
    return spec, spec.store.url, stores[0], None


def places(spec: TargetSpec) -> list[str]:
    """The URLs of all that a target is: what names it and, where that is elsewhere, its store."""
    if not is_folder_url(spec.store.url):
        return [spec.store.url]
    found, tree = located(spec)
    return list(dict.fromkeys([spec.store.url, *([found.store.url] if tree and found.store.url != f"{tree}/{STORE}" else [])]))


def _check_no_store(spec: TargetSpec) -> None:
    """UsageError when a place that is no local folder is to have its store elsewhere."""
    named = normalise_url(spec.apart.url) if spec.apart.url else ""
    _check_own(named, spec.store.url, "only a tree in a local folder can have its store elsewhere")


def _check_own(named: str, own: str, why: str) -> None:
    if named and named != own:
        raise UsageError("cannot use --store", where=named, why=why, hint="leave out --store")


def _joins(tree: str, store: MaintainedStore, info: dict[str, Any] | None, making: Making | None) -> bool:
    """Whether a live folder has still to be told that its store is elsewhere. UsageError, TargetMissingError when it is not its."""
    if not tree or store.url == os.path.join(tree, STORE) or is_web_url(tree):
        return False
    pointer = elsewhere.named_by(tree)
    if pointer is not None:
        elsewhere.check_named(tree, store.url, pointer, info, making is not None)
        return False
    if info is not None and info["layout"] == TREE:
        has_log = making is not None and next(iter(store.list(LOG_PREFIX)), None) is not None
        anew = making is not None and making.new_target
        elsewhere.check_unnamed(tree, store.url, info, has_log=has_log, writes=making is not None, anew=anew)
    return making is not None


def _tree_of(store: str, info: dict[str, Any]) -> str:
    """The next step for whoever names the store of a tree."""
    live = info.get("live")
    if isinstance(live, dict):
        return f"name the tree itself: {live.get('path')} on {live.get('host')} (where that is lost, with --store {store})"
    return f"name the tree itself: {os.path.dirname(store)}"


def _is_there(folder: Path) -> bool:
    try:
        return folder.exists()
    except OSError:
        return False


class _Closing:
    def __init__(self, state: State) -> None:
        self.state = state

    def __enter__(self) -> _Closing:
        return self

    def __exit__(self, *_: object) -> None:
        self.state.close()


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


def _make(spec: TargetSpec, store: MaintainedStore, tree: str, making: Making | None, dry_run: bool) -> dict[str, Any]:
    url = tree or store.url
    known = known_at(spec.cache, url)
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
    others = _other_things(spec.store, store, tree)
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
        _make_folder(tree)
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


def _make_folder(tree: str) -> None:
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


def _other_things(spec: StoreSpec, store: MaintainedStore, tree: str) -> list[str]:
    """What a place holds that is to become a target; folders of a store with a slash."""
    found = []
    if tree and not is_folder_url(tree):
        return [name for name in names_in(live_spec(spec, tree)) if name != f"{STORE}/"] + _other_things(spec, store, "")
    if tree:
        try:
            found = sorted(name for name in os.listdir(tree) if name not in (STORE, "lost+found"))
        except FileNotFoundError:
            pass
        except NotADirectoryError as error:
            raise UsageError("cannot make the target", where=tree, why="it is not a folder") from error
        return found + _other_things(spec, store, "")
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
