"""A sync into a tree is killed at fifty random moments of publishing: each next sync completes, and every snapshot comes back.

./tests/run.sh -m long tests/test_kills.py                    MIRROR_TEST_SEED=17 repeats a run: the seed is printed
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from conftest import S3
from kills import BusySite, Kills
from mirrors import target_in, tree
from test_tree_bucket import files, objects
from trees import Night, live

from mirror.target import TargetSpec

SEED = os.environ.get("MIRROR_TEST_SEED")  # asked now: within a test the environment is an empty one
DEATHS, HITS = 50, 30


def killed_in_a_folder(folder: Path, seed: int, deaths: int, pages: int = 300) -> Kills:
    """So many deaths in a fresh folder tree."""
    target = target_in(folder, "live")
    kills = Kills(target, BusySite(folder / "site", seed, pages), folder, look=lambda: live(target))
    try:
        kills.until(deaths)
        kills.everything_comes_back()
    finally:
        print(f"seed {seed}: {kills.deaths} deaths, {kills.hits} while publishing, {kills.twice} twice in a row, "  # noqa: T201
              f"between: {kills.between}, {len(kills.nights)} snapshots")  # fmt: skip
        print(*kills.story[-12:], sep="\n")  # noqa: T201
    return kills


def killed_in_a_bucket(folder: Path, s3: S3, seed: int, deaths: int, pages: int = 60) -> Kills:
    """The same on S3. A dead publisher holds its lease: that it is dead is known here."""
    target = TargetSpec(s3.spec("www"), folder / "cache")
    site = BusySite(folder / "site", seed, pages)
    words = ("--endpoint-url", s3.endpoint_url, "--region", s3.region, "--transfers", "4", "--take-over")

    def look() -> Night:
        seen, wanted = objects(s3), files(site.root)
        assert seen.keys() == wanted.keys()
        assert [key for key in seen if seen[key] != wanted[key]] == []
        return tree(site.root)

    kills = Kills(target, site, folder, look, words, {"take_over": True}, may_be_incomplete=True)
    try:
        kills.until(deaths)
        kills.everything_comes_back()
    finally:
        print(f"seed {seed}: {kills.deaths} deaths, {kills.hits} while publishing, {kills.twice} twice in a row, "  # noqa: T201
              f"between: {kills.between}, {len(kills.nights)} snapshots")  # fmt: skip
        print(*kills.story[-12:], sep="\n")  # noqa: T201
    return kills


def test_two_random_kills(tmp_path: Path) -> None:
    assert killed_in_a_folder(tmp_path, int(SEED or 1), 2, pages=60).deaths >= 2


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_fifty_random_kills(tmp_path: Path) -> None:
    kills = killed_in_a_folder(tmp_path, int(SEED or random.SystemRandom().randrange(1_000_000)), DEATHS)
    assert kills.deaths >= DEATHS
    assert kills.hits >= HITS
    assert kills.twice >= 3
    assert len(kills.between) >= 2


def test_two_random_kills_on_s3(tmp_path: Path, s3: S3) -> None:
    assert killed_in_a_bucket(tmp_path, s3, int(SEED or 1), 2).deaths >= 2


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_fifty_random_kills_on_s3(tmp_path: Path, s3: S3) -> None:
    kills = killed_in_a_bucket(tmp_path, s3, int(SEED or random.SystemRandom().randrange(1_000_000)), DEATHS)
    assert kills.deaths >= DEATHS
    assert kills.hits >= HITS
    assert kills.twice >= 3
    assert len(kills.between) >= 2
