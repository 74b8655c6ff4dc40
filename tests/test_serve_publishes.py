"""A publish that a server runs, and who follows it: a server that is started anew meanwhile, a publish that always dies, and what
of all that it says is kept.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from pathlib import Path

import pytest
from distant import publishes
from serving import Served
from test_serve_trees import Away, Tree, many_files

from mirror.errors import TemporaryError
from mirror.serve.publications import BYTES_KEPT, EVENTS_KEPT, Publication
from mirror.store.served import _events


def test_a_server_that_is_started_anew_in_the_middle_is_waited_for(tmp_path: Path) -> None:
    """As by `systemctl restart`: it stops its publish, and goes on with it when it is there again."""
    (tmp_path / "t").mkdir()
    with Served(tmp_path / "server") as server:
        server.new_key("publisher", "read,append,publish")
        target = Tree(server, tmp_path / "t")
        many_files(target.site)
        away = Away(target)
        away.publishes()
        assert publishes(target.live)
        server._options = ("--listen", f"127.0.0.1:{server.port}")
        assert server.stop(signal.SIGTERM) == 130
        assert publishes(target.live) == []
        server.start()
        assert away.ends().exit_code == 0
        target.is_like_the_site()
        assert "takeover" in target.kinds


def test_a_publish_that_dies_each_time_is_not_asked_for_for_ever(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    with Served(tmp_path / "server") as server:
        server.new_key("publisher", "read,append,publish")
        target = Tree(server, tmp_path / "t")
        away, killed, end = Away(target), set(), time.monotonic() + 60
        while away.thread.is_alive() and time.monotonic() < end:
            for process in publishes(target.live):
                os.kill(process, signal.SIGKILL)
                killed.add(process)
            time.sleep(0.005)
        with pytest.raises(TemporaryError, match="the process that publishes: it ended with -9"):
            away.ends()
        assert 5 <= len(killed) <= 7  # the first may be over before anybody listens
        assert target.kinds == ["import"]
        assert target.sync().exit_code == 0
        target.is_like_the_site()


def test_what_is_kept_for_who_comes_late_is_bounded() -> None:
    """However many problems a publish has, and however long the paths are that it tells them of."""
    for length, told, most in ((10, EVENTS_KEPT + 50, EVENTS_KEPT), (60_000, 100, BYTES_KEPT // 60_000)):
        publication = Publication(itertools.count(1))
        for _ in range(told):
            publication.tell(json.dumps({"event": "problem", "path": "x" * length, "kind": "unwritable"}).encode())
        publication.tell(b'{"event": "summary", "snapshot": 7}')
        assert publication._kept == sum(len(event) for _, event in publication._events) <= BYTES_KEPT
        assert most // 2 < len(publication._events) <= most + 1
        assert b'"snapshot":7' in publication._events[-1][1]


def test_a_word_without_news_is_heard_as_well() -> None:
    """A publish may wait for its turn behind others, or pack for minutes: who follows hears that it goes on."""
    pieces = [b": mirror\n\n: it go", b"es on\n\nid: 5\nevent: phase\nda", b'ta: {"phase":"commit"}\n\n: else\n\n']
    assert [(told.number, told.name, told.values) for told in _events(pieces)] == [
        (0, "alive", {}),
        (5, "phase", {"phase": "commit"}),
    ]
