"""Trees over HTTP live through what can happen to them: after each step people see the site, and every snapshot comes back.

./tests/run.sh -m long tests/test_serve_life.py              MIRROR_TEST_SEED=17 repeats a run: the seed is printed
MIRROR_TEST_STORY=1 with -s tells what is done. The moments of deaths differ from run to run, all else is the same for a seed.
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from distant import Life

SEED = os.environ.get("MIRROR_TEST_SEED")  # asked now: within a test the environment is an empty one


def lived(folder: Path, seed: int, steps: int, *, drift: bool = False) -> Life:
    """A life of so many steps."""
    life = Life(folder, seed)
    try:
        with life:
            life.goes_on(steps, deaths=True, drift=drift)
    finally:
        print(f"seed {seed}: {len(life.nights)} snapshots, deaths {life.deaths}", *life.story[-12:], sep="\n")  # noqa: T201
    return life


def test_a_short_life(tmp_path: Path) -> None:
    """Of a server and clients that one user runs: what they remember is in one folder, apart."""
    life = lived(tmp_path, int(SEED or 3), 2)
    assert len(life.nights) >= 2
    cache = life.server.folder / "cache"
    uuid = next(path.name for path in (cache / "clients").iterdir())
    assert all((cache / place / uuid / "state.sqlite").exists() for place in ("", "clients"))


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_a_long_life(tmp_path: Path) -> None:
    life = lived(tmp_path, int(SEED or random.SystemRandom().randrange(1_000_000)), 60)
    assert sum(life.deaths.values()) >= 10


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_a_life_with_people_at_the_live_files(tmp_path: Path) -> None:
    lived(tmp_path, int(SEED or random.SystemRandom().randrange(1_000_000)), 40, drift=True)
