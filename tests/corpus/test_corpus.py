"""Real trees there and back: Debian's rust-doc, five nights of the npm package next, and a kill in the middle.

    ./tests/run.sh -m corpus

The corpora are fetched once (see fetch.py). What is right is said by rsync, rclone, b3sum and xxhsum, never by mirror.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import SeaweedFS

from . import fetch
from .cli import CHECKOUT, Mirror, assert_sums_pass, checked, differences, plain_files

pytestmark = [pytest.mark.corpus, pytest.mark.timeout(1800)]

HASHES = ("sha256", "blake3", "xxh128")
REDO_BYTES = 256 << 20  # what a run that died may cost again
KILL_AT = 0.8
CORPUS = fetch.default_folder()  # asked now: within a test the environment is an empty one


@pytest.fixture(scope="module")
def corpora() -> fetch.Corpora:
    return fetch.fetch(CORPUS)


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for gigabytes, removed at once."""
    folder = tmp_path_factory.mktemp("corpus")
    yield folder
    shutil.rmtree(folder)


def on_folder(folder: Path) -> Mirror:
    folder.mkdir()
    (folder / "home").mkdir()
    return Mirror(str(folder / "target"), folder / "home")


def on_s3(folder: Path, server: SeaweedFS) -> Mirror:
    keys = {
        "AWS_ACCESS_KEY_ID": server.admin.access_key,
        "AWS_SECRET_ACCESS_KEY": server.admin.secret_key,
        "AWS_REGION": server.region,
        "AWS_DEFAULT_REGION": server.region,
    }
    (folder / "home").mkdir(parents=True)
    return Mirror(f"s3://{server.new_bucket()}/mirrors/next", folder / "home", ("--endpoint-url", server.endpoint_url), keys)


def listing(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file of a store: size and modification time."""
    return {str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns) for path in plain_files(folder)}


def stored_bytes(mirror: Mirror) -> int:
    return sum(size for size, _ in listing(Path(mirror.target)).values())


@pytest.fixture(scope="module")
def rust_doc(work: Path, corpora: fetch.Corpora) -> tuple[Mirror, dict[str, Any]]:
    """rust-doc, mirrored once into a folder, and the summary of that run."""
    mirror = on_folder(work / "rust-doc")
    snapshot, summary = mirror.sync(corpora.rust_doc)
    assert snapshot > 0
    return mirror, summary


def test_rust_doc_has_what_it_is_here_for(corpora: fetch.Corpora) -> None:
    links = [path for path in corpora.rust_doc.rglob("*") if path.is_symlink()]
    assert any(not path.exists() for path in links)
    assert len(plain_files(corpora.rust_doc)) > 10_000


def test_rust_doc_comes_back(rust_doc: tuple[Mirror, dict[str, Any]], corpora: fetch.Corpora, work: Path) -> None:
    mirror, _ = rust_doc
    out = mirror.restore(work / "restored")
    assert differences(corpora.rust_doc, out) == ""
    shutil.rmtree(out)


@pytest.mark.parametrize("hash_name", HASHES)
def test_rust_doc_sums_pass(hash_name: str, rust_doc: tuple[Mirror, dict[str, Any]], corpora: fetch.Corpora, work: Path) -> None:
    mirror, _ = rust_doc
    assert_sums_pass(hash_name, mirror.sums(hash_name, work / f"rust-doc.{hash_name}"), corpora.rust_doc)


def test_rust_doc_verifies(rust_doc: tuple[Mirror, dict[str, Any]], corpora: fetch.Corpora) -> None:
    mirror, _ = rust_doc
    before = listing(Path(mirror.target))
    mirror.run("verify", mirror.target)
    mirror.run("verify", mirror.target, "--against", corpora.rust_doc)
    assert listing(Path(mirror.target)) == before


def test_rust_doc_unchanged_writes_nothing(rust_doc: tuple[Mirror, dict[str, Any]], corpora: fetch.Corpora) -> None:
    mirror, _ = rust_doc
    before = listing(Path(mirror.target))
    snapshot, summary = mirror.sync(corpora.rust_doc)
    assert snapshot == 0
    assert summary["bytes_stored"] == 0
    assert summary["bytes_read"] == 0
    assert listing(Path(mirror.target)) == before


def test_next_hides_changes_behind_size_and_mtime(corpora: fetch.Corpora) -> None:
    """The trap is in the corpus: files that differ between two releases in content only."""
    first, second = corpora.nexts[0], corpora.nexts[1]
    hidden = 0
    for path in plain_files(first):
        other = second / path.relative_to(first)
        if other.is_file():
            old, new = path.stat(), other.stat()
            hidden += (old.st_size, old.st_mtime_ns) == (new.st_size, new.st_mtime_ns) and path.read_bytes() != other.read_bytes()
    assert hidden > 10


@pytest.mark.parametrize("where", ["folder", "s3"])
def test_five_nights_of_next(where: str, corpora: fetch.Corpora, work: Path, request: pytest.FixtureRequest) -> None:
    base = work / f"nights-{where}"
    mirror = on_folder(base) if where == "folder" else on_s3(base, request.getfixturevalue("seaweed"))
    site = base / "site"
    site.mkdir()
    releases: dict[int, Path] = {}
    for release in corpora.nexts:
        checked(["rsync", "-a", "--checksum", "--delete", f"{release}/", f"{site}/"], env=os.environ, cwd=CHECKOUT)
        assert differences(release, site) == ""
        snapshot, _ = mirror.sync(site)
        assert snapshot > max(releases, default=0), "no new snapshot"
        releases[snapshot] = release
        assert differences(site, mirror.restore(base / "newest")) == ""
        for hash_name in HASHES:
            assert_sums_pass(hash_name, mirror.sums(hash_name, base / f"sums.{hash_name}"), site)
        for number, old in releases.items():
            assert differences(old, mirror.restore(base / "old", number)) == "", f"snapshot {number} is not {old.name}"
    mirror.run("verify", mirror.target)
    shutil.rmtree(base)


def kill_sync(mirror: Mirror, source: Path, total: int) -> int:
    """Start a sync and kill all its processes with SIGKILL at 80 % of the transfer; the plain bytes that were done by then."""
    command = mirror.command("sync", source, mirror.target, "--layout", "packed", "--json")
    done = 0
    with subprocess.Popen(command, env=mirror.env, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True, start_new_session=True) as run:
        assert run.stdout
        for line in run.stdout:
            event = json.loads(line)
            if event["event"] == "advanced" and event["phase"] == "transfer":
                done += event["bytes"]
            if done >= KILL_AT * total:
                break
        os.killpg(run.pid, signal.SIGKILL)
        run.stdout.read()
    assert run.returncode == -signal.SIGKILL, f"the run ended by itself with {run.returncode} after {done} of {total} bytes"
    return done


def test_killed_run_redoes_little(rust_doc: tuple[Mirror, dict[str, Any]], corpora: fetch.Corpora, work: Path) -> None:
    whole_store = stored_bytes(rust_doc[0])
    total = sum(path.stat().st_size for path in plain_files(corpora.rust_doc))
    mirror = on_folder(work / "killed")
    may_cost = total - kill_sync(mirror, corpora.rust_doc, total) + REDO_BYTES
    assert may_cost < 0.95 * total, "the corpus is too small to tell a resumed run from a new one"
    left_behind = stored_bytes(mirror)

    summary, resumed = mirror.counted_sync(corpora.rust_doc, work / "resumed.io")
    grown = stored_bytes(mirror) - left_behind
    _, idle = mirror.counted_sync(corpora.rust_doc, work / "idle.io")

    # What the run says of itself, then what the kernel says: less what an unchanged run reads to start and to look around.
    assert summary["bytes_read"] <= may_cost
    assert resumed.read - idle.read <= may_cost + (32 << 20)
    # Put: the plain bytes of what was packed, and the store's growth as a share of a whole store, with room for the part that was
    # left compressing worse than the mean.
    assert summary["bytes_new"] <= may_cost
    assert grown <= 1.2 * whole_store * may_cost / total
    assert differences(corpora.rust_doc, mirror.restore(work / "killed" / "out")) == ""
    mirror.run("verify", mirror.target)
    shutil.rmtree(work / "killed")
