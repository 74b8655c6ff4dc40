"""Targets of layout `tree`: people see just the site, every snapshot comes back, and what is not ours is never destroyed.

Truth is what the system says of the folders.
"""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

import pytest
from mirrors import BEGINNING, make_site, noise, settle, target_in, tree, write
from trees import MAKE, Night, Walk, all_restore, clean, kinds, live, publish

from mirror.plan import DeletionLimit
from mirror.target import TargetSpec

EVERYTHING = DeletionLimit(percent=100)


@pytest.fixture
def target(tmp_path: Path) -> TargetSpec:
    return target_in(tmp_path, "live")


@pytest.mark.parametrize("seed", range(12))
def test_a_walk_of_edits(tmp_path: Path, target: TargetSpec, seed: int) -> None:
    walk = Walk(tmp_path / "site", seed)
    nights: dict[int, Night] = {}
    for _ in range(8):
        report = clean(walk.root, target, max_delete=EVERYTHING)
        if report.snapshot:
            nights[report.snapshot] = tree(walk.root)
        walk.edit()
    assert len(nights) > 4
    all_restore(target, nights, tmp_path)
