"""Targets: what a mirror lives in. From a URL to an open store with its `mirror.json`, its local state and its lock.

Owns the rules for recognising a target: what is looked for, where, and in which order (DESIGN section 7). `mirror.making` makes one
that is not there.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mirror import elsewhere
from mirror.errors import AuthError, DamageError, MirrorError, UsageError
from mirror.hosts import known_at, lock_target, remember_at
from mirror.keys import LOG_PREFIX, MIRROR_KEY, STORE, STORE_KEY
from mirror.making import PACKED, TREE, Making, can_hold_tree, default_layout, make, make_folder, read_info
from mirror.site import SiteSpec
from mirror.state import State, open_state
from mirror.store import MaintainedStore, StoreSpec
from mirror.store.open import folder_of, is_folder_url, is_web_url, normalise_url, open_store
from mirror.store.wrap import CountingStore

_CLIENTS = "clients"


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


def _is_only_read(store: StoreSpec) -> bool:
    """Whether this is a place behind a web server, and no `mirror serve`."""
    return is_web_url(store.url) and not store.key_file


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
        asked = replace(making, layout=layout) if making else None
        known = bool(known_at(spec.cache, url))
        info = make(store, tree, live_spec(spec.store, tree), asked, known=known, dry_run=dry_run)
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
                make_folder(tree)
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
