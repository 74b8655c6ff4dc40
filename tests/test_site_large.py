"""The first page of a large mirror does not wait for the size of the site. Marked long: making 300,000 entries takes a while."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest
from large import enlarge, page, path_of
from mirrors import mirror, target_in, write
from visits import serving

ENTRIES = 300_000
FIRST_PAGE_SECONDS = 2.0
PAGES = 300


@pytest.mark.long
def test_the_first_page_of_a_large_mirror(tmp_path: Path) -> None:
    """Within two seconds of starting the command, on a host that has never seen the target; the best of three starts counts, since
    other work may be going on. Then pages from everywhere, in memory that does not know how large the site is."""
    target = target_in(tmp_path)
    write(tmp_path / "site" / "a", b"a")
    mirror(tmp_path / "site", target)
    enlarge(Path(target.store.url), ENTRIES)
    taken = []
    for attempt in range(3):
        began = time.monotonic()
        with serving(target.store.url, MIRROR_CACHE_DIR=str(tmp_path / f"host-{attempt}")) as site:
            assert site.get("/").body == b"<h1>start</h1>"
            taken.append(time.monotonic() - began)
            before = site.memory
            dice = random.Random(attempt)
            for number in (0, ENTRIES - 1, *(dice.randrange(ENTRIES) for _ in range(PAGES))):
                assert site.get("/" + path_of(number).decode()).body == page(number)
            assert site.get("/" + path_of(ENTRIES).decode()).status == 404
            assert site.memory - before < 120 << 20, (before >> 20, site.memory >> 20)
    assert min(taken) < FIRST_PAGE_SECONDS, taken
