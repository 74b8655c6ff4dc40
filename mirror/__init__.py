"""mirror: exact, verifiable copies of whole sites, kept somewhere else, and brought back when it matters.

The verbs of the command line are functions here. Each takes folders or URLs, and the command's options by name:

    import mirror

    report = mirror.sync("/srv/www", "/backup/www", layout="packed", exclude=["*.tmp"], max_transfer="10G")
    assert report.exit_code == 0
    for line in mirror.snapshots("/backup/www"):
        print(line.number, line.time, line.entries)

Values are as on the command line ("10M", "26h", "25%") or plain: bytes, seconds, True. Rules whose order counts are given as
`rules=[("include", "*.html"), ("exclude", "*")]`. `listeners` are called with each event (`mirror.events.Stamped`). Errors are
those of `mirror.errors`; problems of single paths stand in the report. MIRROR_* variables count for the command line only.

Nothing is loaded before it is needed.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from os import PathLike

    from mirror.config import Settings
    from mirror.contents import SnapshotLine
    from mirror.create import InitReport
    from mirror.events import Job
    from mirror.manifest import ChangeLine, Entry
    from mirror.publish import PublishReport
    from mirror.restore import RestoreReport
    from mirror.rollback import RollbackReport
    from mirror.serve.receiver import ReceiveReport
    from mirror.serve.site import SiteReport
    from mirror.tally import SyncReport, VerifyReport
    from mirror.target import TargetSpec

__version__ = "0.1.0"
__all__ = ["cat", "diff", "init", "ls", "publish", "restore", "rollback", "serve", "snapshots", "sums", "sync", "verify"]


class _Call:
    """One call of a verb: its options, its job, and the check that every option was one."""

    def __init__(self, verb: str, options: dict[str, Any]) -> None:
        from mirror.config import Settings
        from mirror.events import Job

        self.job: Job = Job(verb, list(options.pop("listeners", ())))
        self.asked: Settings = Settings(options)

    def target(self, place: str | PathLike[str]) -> TargetSpec:
        from mirror.config import target_spec
        from mirror.events import Notice

        return target_spec(place, self.asked, lambda kind, text: self.job.say(Notice(kind, text)))

    def settle(self) -> Job:
        """The job, once all options have been asked for."""
        unknown = self.asked.unknown()
        if unknown:
            raise TypeError(f"mirror.{self.job.verb}() has no option {unknown[0]!r}")
        return self.job


def init(target: str | PathLike[str], **options: Any) -> InitReport:
    """Make an empty target. options: layout, site, adopt, new_target, store; and how to reach it."""
    from mirror.config import making
    from mirror.create import init as run

    call = _Call("init", options)
    spec, how = call.target(target), making(call.asked)
    return run(spec, how, call.settle())


def _sync(source: str | PathLike[str], target: str | PathLike[str], **options: Any) -> SyncReport:
    """Make the target's newest snapshot what the site `source` is now; a `SyncReport`."""
    from mirror.config import site_spec, sync_options
    from mirror.sync import sync as run

    call = _Call("sync", options)
    site, spec = site_spec(source, call.asked), call.target(target)
    chosen = sync_options(call.asked, "mirror sync")
    return run(site, spec, chosen, call.settle())


def _restore(
    target: str | PathLike[str], out: str | PathLike[str], paths: Sequence[str | bytes] = (), **options: Any
) -> RestoreReport:
    """Bring a snapshot, or files and folders of it, back into `out`: a folder, a bucket, an fsspec URL; a `RestoreReport`."""
    from mirror.config import restore_options, site_spec
    from mirror.restore import restore as run

    call = _Call("restore", options)
    spec, chosen = call.target(target), restore_options(call.asked, "mirror restore", paths)
    where = site_spec(out, call.asked, "OUT")
    return run(spec, where, chosen, call.settle())


def _publish(target: str | PathLike[str], **options: Any) -> PublishReport:
    """Make what clients have brought for a tree its newest snapshot (`mirror publish`)."""
    from mirror.config import waiting_options
    from mirror.publish import publish as run

    call = _Call("publish", options)
    spec, chosen = call.target(target), waiting_options(call.asked)
    return run(spec, chosen, call.settle())


def _rollback(target: str | PathLike[str], at: str | int | None = None, **options: Any) -> RollbackReport:
    """Make the snapshot `at` the newest one again, and hold the target; a `RollbackReport`."""
    from mirror.config import rollback_options
    from mirror.rollback import rollback as run

    call = _Call("rollback", {"at": at, **options})
    spec, chosen = call.target(target), rollback_options(call.asked, "mirror rollback")
    return run(spec, chosen, call.settle())


def _verify(target: str | PathLike[str], **options: Any) -> VerifyReport:
    """Read the target, or a part of it, and check every byte; a `VerifyReport`."""
    from mirror.config import verify_options
    from mirror.verify import verify as run

    call = _Call("verify", options)
    spec, chosen = call.target(target), verify_options(call.asked)
    return run(spec, chosen, call.settle())


def snapshots(target: str | PathLike[str], **options: Any) -> list[SnapshotLine]:
    """The live snapshots, oldest first."""
    from mirror.contents import snapshots as run

    call = _Call("snapshots", options)
    spec = call.target(target)
    return run(spec, call.settle())


def diff(first: str | PathLike[str], *others: str | PathLike[str] | int, **options: Any) -> Iterator[tuple[ChangeLine, int]]:
    """`diff(source, target)`: what a sync would change; `diff(target, 41, 42)`: what changed between the two. (line, size) each."""
    from mirror.config import look_options, site_spec
    from mirror.contents import diff as between
    from mirror.contents import diff_site

    call = _Call("diff", options)
    if len(others) == 2:
        spec = call.target(first)
        return between(spec, str(others[0]), str(others[1]), call.settle())
    if len(others) != 1 or isinstance(others[0], int):
        raise TypeError("mirror.diff() takes a source and a target, or a target and two snapshots")
    site, spec = site_spec(first, call.asked), call.target(others[0])
    at, look = call.asked.text("at", "latest"), look_options(call.asked)
    return diff_site(site, spec, at, look, call.settle())


def ls(target: str | PathLike[str], paths: Sequence[str | bytes] = (), **options: Any) -> Iterator[Entry]:
    """The entries of a snapshot in order of path: all, or `paths` and what is below them."""
    from mirror.contents import ls as run

    call = _Call("ls", options)
    spec, at = call.target(target), call.asked.text("at", "latest")
    return run(spec, at, paths, call.settle())


def cat(target: str | PathLike[str], path: str | bytes, **options: Any) -> Iterator[bytes]:
    """The content of one file, piece by piece."""
    from mirror.contents import cat as run

    call = _Call("cat", options)
    spec, at = call.target(target), call.asked.text("at", "latest")
    return run(spec, at, path, call.settle())


def sums(target: str | PathLike[str], **options: Any) -> Iterator[tuple[str, bytes]]:
    """(checksum in hex, path) of each file of a snapshot. options: hash (xxh128, blake3, sha256), at."""
    from mirror.contents import sums as run
    from mirror.spelling import HASHES

    call = _Call("sums", options)
    spec, at = call.target(target), call.asked.text("at", "latest")
    algorithm = call.asked.choice("hash", HASHES, HASHES[0])
    return run(spec, at, algorithm, call.settle())


def _serve(target: str | PathLike[str], *, site: bool = False, **options: Any) -> SiteReport | ReceiveReport:
    """With `site=True`, serve a snapshot as a web site until a signal comes; a `SiteReport`. options: at, listen, memory,
    certfile, keyfile, and how to reach the target. A listener hears of the URL: the notice `listening`.

    With `keys=FILE`, hold the targets below a folder for clients with keys; a `ReceiveReport`. options: listen, certfile,
    keyfile, insecure, max_body, imports, client_timeout, min_free, cache_dir."""
    from mirror.config import serve_site_options
    from mirror.errors import UsageError
    from mirror.serve.site import serve_site

    call = _Call("serve", options)
    if options.get("keys") and not site:
        return _receive(target, call)
    spec, chosen = call.target(target), serve_site_options(call.asked)
    job = call.settle()
    if not site:
        raise UsageError("cannot serve", where=str(target), why="it is not said what for", hint="say site=True, or keys=FILE")
    return serve_site(spec, chosen, job)


def _receive(root: str | PathLike[str], call: _Call) -> ReceiveReport:
    from mirror.config import receive_options
    from mirror.events import Notice
    from mirror.serve.receiver import receive

    chosen = receive_options(call.asked, lambda kind, text: call.job.say(Notice(kind, text)))
    return receive(os.fspath(root), chosen, call.settle())


# -- sync, restore, publish, rollback, serve and verify are modules as well ---------------------------------------------

_MODULES: Final[dict[str, Callable[..., Any]]] = {
    "sync": _sync,
    "restore": _restore,
    "publish": _publish,
    "rollback": _rollback,
    "serve": _serve,
    "verify": _verify,
}


class _Verb(ModuleType):
    """A verb's module that can be called. The import system binds `mirror.sync` to the module of that name as soon as anybody
    imports it, so a function of that name would not last."""

    def __call__(self, *places: Any, **options: Any) -> Any:
        return _MODULES[self.__name__.rpartition(".")[2]](*places, **options)


class _Package(ModuleType):
    def __setattr__(self, name: str, value: object) -> None:
        if name in _MODULES and isinstance(value, ModuleType):
            value.__class__ = _Verb
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if TYPE_CHECKING:
    sync, restore, publish, rollback, serve, verify = _sync, _restore, _publish, _rollback, _serve, _verify
