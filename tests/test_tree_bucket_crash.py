"""A sync into a tree on S3 that is killed before or after one of its requests: the next one finishes it, and nothing is lost."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from conftest import S3
from killed import run_killed
from mirrors import BEGINNING, noise, settle, tree, write
from servers import SeaweedFS
from test_tree_bucket import EVERYTHING, clean, files, objects
from test_tree_crash import change
from trees import Night, all_restore, publish

from mirror.pick import Reading
from mirror.target import TargetSpec
from mirror.verify import VerifyOptions, verify

POINTS = 20
MiB = 1 << 20


@dataclass
class Scene:
    """A tree of two nights, and a site that has changed in every way since. Copied for each death."""

    folder: Path
    s3: S3
    target: TargetSpec
    nights: dict[int, Night]
    changes: int = 0

    @property
    def site(self) -> Path:
        return self.folder / "site"

    def copy(self, to: Path) -> tuple[S3, TargetSpec]:
        """The tree as it was, under another prefix; this host remembers nothing of it."""
        s3 = replace(self.s3, prefix=uuid.uuid4().hex[:12])
        for key in self.s3.objects("www"):
            source = {"Bucket": s3.bucket, "Key": f"{self.s3.prefix}/www/{key}"}
            s3.client.copy_object(Bucket=s3.bucket, Key=f"{s3.prefix}/www/{key}", CopySource=source)
        return s3, TargetSpec(s3.spec("www"), to / "cache")


def killed(s3: S3, site: Path, target: TargetSpec, last: int, *more: str) -> int:
    """A sync that dies at its `last` request (0: lives); how many there were, 0 when it died."""
    assert target.cache
    words = ("sync", site, target.store.url, "--endpoint-url", s3.endpoint_url, "--region", s3.region, "--workers", "0", "-q",
             "--max-delete", "100%", "--cache-dir", target.cache, "--transfers", "2", *more)  # fmt: skip
    return run_killed(last, target.cache.parent / "count", *words)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory, seaweed: SeaweedFS, shared_bucket: str) -> Scene:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", seaweed.admin.access_key)
        patch.setenv("AWS_SECRET_ACCESS_KEY", seaweed.admin.secret_key)
        folder = tmp_path_factory.mktemp("scene")
        s3 = S3(seaweed, shared_bucket, uuid.uuid4().hex[:12])
        scene = Scene(folder, s3, TargetSpec(s3.spec("www"), folder / "cache"), {})
        site = scene.site
        write(site / "index.html", b"<h1>one</h1>")
        write(site / "big.bin", noise(1_500_000))
        write(site / "film.bin", noise(11 * MiB, 9))
        for name in ("moves.png", "moves too.png"):
            write(site / name, noise(20_000, len(name)))
        write(site / "goes.txt", b"goes")
        write(site / "becomes a folder", b"file " * 100)
        for name in ("x/deep", "y"):
            write(site / "becomes a file" / name, b"deep " * 100)
        for number in range(6):
            write(site / "pages" / f"{number}.html", b"<p>%d</p>" % number * 50)
        write(site / "style.css", b"a{}" * 500)
        (site / "pages" / "linked.css").hardlink_to(site / "style.css")
        (site / "link").symlink_to("index.html")
        settle(site)
        scene.nights[clean(s3, site, scene.target).snapshot] = tree(site)
        write(site / "index.html", b"<h1>two</h1>", BEGINNING + 1)
        (site / "pages" / "5.html").unlink()
        settle(site)
        scene.nights[clean(s3, site, scene.target).snapshot] = tree(site)
        change(site)
        write(site / "film.bin", b"!" + noise(11 * MiB, 9), BEGINNING + 3)
        write(site / "index.html", b"<h1>333</h1>", BEGINNING + 3)  # a host that knows nothing goes by size and time
        settle(site)
        trial = tmp_path_factory.mktemp("trial")
        there, target = scene.copy(trial)
        scene.changes = killed(there, site, target, 0)
        assert objects(there) == files(site)
        assert scene.changes > 2 * POINTS
    return scene


def recovers(scene: Scene, s3: S3, target: TargetSpec, folder: Path) -> None:
    """Old snapshots come back now; the next sync completes, from another host; then all of them come back."""
    all_restore(target, scene.nights, folder)
    host = TargetSpec(target.store, folder / "other-cache")
    report = publish(scene.site, host, take_over=True, max_delete=EVERYTHING)
    assert report.problems == [], report.problems
    assert objects(s3) == files(scene.site)
    assert publish(scene.site, host, max_delete=EVERYTHING).snapshot == 0, "the second sync after it had something left to do"
    with Reading(target) as reading:
        newest = reading.pick("latest").number
    all_restore(target, scene.nights | {newest: tree(scene.site)}, folder)
    assert not [key for key in s3.objects("www") if key.startswith(".mirror/aside/")]
    assert verify(target, VerifyOptions(workers=0)).exit_code == 0


@pytest.mark.parametrize("part", [each if each % 4 == 1 else pytest.param(each, marks=pytest.mark.long) for each in range(POINTS)])
def test_a_sync_that_dies_is_finished_by_the_next(scene: Scene, s3: S3, tmp_path: Path, part: int) -> None:
    last = 1 + part * (scene.changes - 1) // (POINTS - 1)
    there, target = scene.copy(tmp_path)
    killed(there, scene.site, target, last)
    recovers(scene, there, target, tmp_path)


@pytest.mark.parametrize("part", [0, *(pytest.param(each, marks=pytest.mark.long) for each in (1, 2, 3))])
def test_dies_twice_in_a_row(scene: Scene, s3: S3, tmp_path: Path, part: int) -> None:
    there, target = scene.copy(tmp_path)
    killed(there, scene.site, target, scene.changes * (part + 3) // 8)
    killed(there, scene.site, target, 2 + 7 * part, "--take-over")
    recovers(scene, there, target, tmp_path)
