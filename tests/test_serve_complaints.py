"""What `mirror serve` says of a flood of requests that it refuses: little, and how many there were."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path

from servers import Visitor
from serving import Served

import mirror
from mirror.serve.complaints import FIRST, MOST, Complaints


class Minutes:
    """A clock by hand."""

    def __init__(self) -> None:
        self.waiting: list[Callable[[], None]] = []

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        assert seconds == 60
        self.waiting.append(act)
        assert len(self.waiting) == 1  # never two at once, else there were more than a line a minute

    def over(self) -> None:
        waiting, self.waiting = self.waiting, []
        for act in waiting:
            act()


def told(said: list[str]) -> list[str]:
    """What was said since the last time."""
    lines = said[:]
    said.clear()
    return lines


def test_the_first_few_and_then_a_line_a_minute() -> None:
    said: list[str] = []
    minutes = Minutes()
    complaints = Complaints(said.append, minutes.later)
    for number in range(1000):
        complaints.tell("192.0.2.1", "rights", f"line {number}")
    assert told(said) == [f"line {number}" for number in range(FIRST)]
    complaints.tell("192.0.2.1", "clock", "another kind")
    complaints.tell("192.0.2.2", "rights", "another address")
    assert told(said) == ["another kind", "another address"]
    minutes.over()
    assert told(said) == ["995 more within 60 s, the last: line 999"]
    for number in range(3):
        complaints.tell("192.0.2.1", "rights", f"later {number}")
    assert told(said) == []
    minutes.over()
    assert told(said) == ["3 more within 60 s, the last: later 2"]
    minutes.over()
    assert told(said) == []
    assert minutes.waiting == []  # a minute without any: forgotten, and nothing ticks
    complaints.tell("192.0.2.1", "rights", "again")
    assert told(said) == ["again"]


def test_one_network_is_one_address() -> None:
    said: list[str] = []
    complaints = Complaints(said.append, Minutes().later)
    for number in range(100):
        complaints.tell(f"2001:db8::{number:x}", "rights", "x")
    assert len(told(said)) == FIRST
    complaints.tell("2001:db8:0:1::1", "rights", "x")
    assert len(told(said)) == 1
    for number in range(20):
        complaints.tell(f"::ffff:192.0.2.{number}", "rights", "x")
    assert len(told(said)) == 20


def test_neither_lines_nor_memory_grow_with_addresses() -> None:
    said: list[str] = []
    minutes = Minutes()
    complaints = Complaints(said.append, minutes.later)
    size = 0
    for minute in range(3):
        for number in range(20_000):
            complaints.tell(
                f"10.{number >> 14}.{(number >> 7) & 127}.{number & 127}", "not-signed", f"{minute} {number} " + "x" * 300
            )
        assert len(complaints._kinds) == MOST
        minutes.over()
        lines = told(said)
        assert len(lines) <= MOST * (FIRST + 1) + 1
        assert lines[-1].startswith("19,900 more from other addresses within 60 s")
        size = size or sys.getsizeof(complaints._kinds)
        assert sys.getsizeof(complaints._kinds) == size


def test_nothing_is_lost_from_the_count() -> None:
    said: list[str] = []
    minutes = Minutes()
    complaints = Complaints(said.append, minutes.later)
    for number in range(5000):
        complaints.tell(f"198.51.100.{number % 250}", f"kind {number % 3}", "x")
        if number % 700 == 0:
            minutes.over()
    complaints.close()
    complaints.close()
    more = sum(int(re.sub(",", "", line.split()[0])) for line in said if " more" in line)
    assert more + sum(line == "x" for line in said) == 5000


def test_a_flood_at_a_real_server(tmp_path: Path) -> None:
    with Served(tmp_path) as server:
        server.init("www")
        for start in range(0, 600, 100):
            with Visitor(server.port) as visitor:
                for number in range(start, start + 100):
                    assert visitor.ask(f"/www/log/{number}").status == 401
        # Who is refused for something else is told of at once, and an honest client is served.
        with Visitor(server.port) as visitor:
            assert visitor.ask("/www/x", Transfer_Encoding="chunked").status == 411
        assert mirror.snapshots(f"{server.url}/www", key_file=server.key_file) is not None
        lines = [line for line in server.log.splitlines() if "127.0.0.1: " in line]
        assert [line.endswith("(not-signed)") for line in lines] == [True] * FIRST + [False]
        assert lines[-1].endswith("(length)")
    lines = [line for line in server.log.splitlines() if "127.0.0.1: " in line]
    assert len(lines) == FIRST + 2
    assert "595 more within 60 s, the last: 127.0.0.1: GET /www/log/599: " in lines[-1]
    assert re.search(r"\b601\b.*refus", server.log)
