"""The proof of publishing: people look at a site all the while releases are synced into it, and never see half of one.

    ./tests/run.sh -m long tests/test_visitors.py

A release is 500 pages, each of which names five assets whose names hold the checksum of their content; the next release has none of
them. nginx serves the tree (with the block of docs/hosting.md), visitors.py looks. With rsync in our place the same visitors see
pages whose assets are gone, so they do see what there is to be seen.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from mirrors import target_in
from nginx import Nginx
from trees import MAKE
from visitors import ASSETS

from mirror.plan import DeletionLimit
from mirror.publishing import PublishOptions
from mirror.site import SiteSpec
from mirror.sync import SyncOptions, sync
from mirror.target import TargetSpec

pytestmark = [pytest.mark.long, pytest.mark.timeout(1500)]

PAGES, RELEASES = 500, 100
VIEWS, STRADDLING, OVERTAKEN = 10_000, 1_000, 500  # at least
THREADS, PATIENCE = 24, 0.3  # of the visitors; seconds
VISITORS = Path(__file__).with_name("visitors.py")


class View(NamedTuple):
    """One page and its assets, as somebody saw them. Times in seconds since 1970."""

    begun: float
    ended: float
    release: int
    wrong: str


class Publish(NamedTuple):
    """When one release was published. visible: when its last page had been."""

    begun: float
    visible: float
    ended: float


def make_release(root: Path, number: int) -> None:
    """The site of one release, in place of the one before it."""
    for folder in (root / "pages", root / "assets"):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    for page in range(PAGES):
        links = []
        for asset in range(ASSETS):
            data = f"/* release {number}, page {page}, asset {asset} */\n".encode() * (1 + (page * asset) % 90)
            name = f"part-{page:03}-{asset}.{hashlib.md5(data).hexdigest()}.{'css' if asset % 2 else 'js'}"
            (root / "assets" / name).write_bytes(data)
            links.append(f'<link href="/assets/{name}">' if asset % 2 else f'<script src="/assets/{name}"></script>')
        body = f"<html><!-- release {number} -->{''.join(links)}{'<p>text</p>' * (page % 400)}</html>\n".encode()
        (root / "pages" / f"{page:03}.html").write_bytes(b"<!-- %s -->\n%s" % (hashlib.md5(body).hexdigest().encode(), body))


@contextmanager
def visited(port: int) -> Iterator[list[View]]:
    """People look meanwhile; afterwards the list has what they saw."""
    command = [sys.executable, str(VISITORS), *map(str, (port, PAGES, THREADS, PATIENCE))]
    views: list[View] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as people:
        try:
            time.sleep(0.5)
            yield views
        finally:
            said, _ = people.communicate(timeout=120)
    assert people.returncode == 0
    views += [View(*json.loads(line)) for line in said.splitlines()]


def publishes_of(target: TargetSpec) -> list[Publish]:
    """When each release was published: as the log has it, whose records are files with times."""
    found: list[list[float]] = []
    for path in sorted((Path(target.store.url) / ".mirror" / "log").iterdir()):
        kind, when = json.loads(path.read_text())["kind"], path.stat().st_mtime
        if kind == "publishing":
            found.append([when])
        else:
            found[-1].append(when)
    return [Publish(times[0], times[1], times[-1]) for times in found]


def straddling(views: list[View], publishes: list[Publish]) -> int:
    """How many views there were during whose time a publish went on."""
    return sum(any(view.begun <= each.ended and each.begun <= view.ended for each in publishes) for view in views)


def test_people_never_see_half_a_release(tmp_path: Path, nginx: Callable[..., Nginx]) -> None:
    site, target = tmp_path / "site", target_in(tmp_path, "live")
    options = SyncOptions(making=MAKE, workers=0, max_delete=DeletionLimit(percent=100), publish=PublishOptions(grace=1))

    def release(number: int) -> None:
        make_release(site, number)
        report = sync(SiteSpec(str(site)), target, options)
        assert report.problems == [], report.problems
        assert report.snapshot

    release(0)
    with visited(nginx(Path(target.store.url)).port) as views:
        begun = time.monotonic()
        for number in range(1, RELEASES + 1):
            release(number)
        took = time.monotonic() - begun
        while time.monotonic() < begun + 20:
            time.sleep(0.1)
    publishes = publishes_of(target)
    assert len(publishes) == RELEASES + 1
    # Two releases later its assets may be gone: who takes as long as that for one page was not promised anything.
    late = [view for view in views if view.release + 2 <= RELEASES and view.ended >= publishes[view.release + 2].visible]
    wrong = [view.wrong for view in views if view.wrong and view not in late]
    overtaken = sum(view.release < RELEASES and view.begun < publishes[view.release + 1].visible <= view.ended for view in views)
    overlapping = straddling(views, publishes[1:])
    print(f"{len(views):,} pages, {overlapping:,} while a publish went on, {overtaken:,} overtaken by the next release, "  # noqa: T201
          f"{len(late)} too late; {RELEASES} releases in {took:.0f} s; wrong: {len(wrong)}")  # fmt: skip
    assert wrong == []
    assert len(views) - len(late) >= VIEWS
    assert overlapping >= STRADDLING
    assert overtaken >= OVERTAKEN
    assert len(late) <= len(views) / 100
    assert {view.release for view in views} == {*range(RELEASES + 1)}
    assert len(list((Path(target.store.url) / "assets").iterdir())) == 2 * PAGES * ASSETS, "those of the last release and one more"


def test_the_same_people_see_what_rsync_does(tmp_path: Path, nginx: Callable[..., Nginx]) -> None:
    site, live = tmp_path / "site", tmp_path / "live"
    publishes = []

    def release(number: int) -> None:
        make_release(site, number)
        begun = time.time()
        subprocess.run(["rsync", "-a", "--delete", f"{site}/", f"{live}/"], check=True)
        publishes.append(Publish(begun, time.time(), time.time()))

    release(0)
    with visited(nginx(live).port) as views:
        for number in range(1, 21):
            release(number)
    wrong = [view.wrong for view in views if view.wrong]
    print(f"{len(views):,} pages, {straddling(views, publishes[1:]):,} while rsync ran; wrong: {len(wrong)}")  # noqa: T201
    assert any("status 404" in each for each in wrong)
