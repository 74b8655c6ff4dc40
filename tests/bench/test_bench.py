"""The benchmark's own parts: medians, ratios, goals, tables, and a sampler that sees the memory of grandchildren."""

from __future__ import annotations

import argparse
import os
import sys
import urllib.request
from pathlib import Path

import pytest
from servers import Answer, scripted_http

from . import main, measure, over_http, tools
from .bench import Bench, environment, our_command
from .figures import NOT_BUILT, Limit, Ratio, Sample, Series, Table, judge
from .memory import huge_file, many_files
from .render import TITLES, Page, goal_grid, grid, page, scenario_grid
from .trees import put_in_front
from .wire import wire_to

FASTER = Ratio("full sync", "folder", "full", "seconds", "restic", at_least=1.5)
SMALLER = Ratio("nights", "nightly", ("b", "c"), "bytes", "restic", at_most=0.40)
LEANER = Limit("memory", "memory", "full", "peak_bytes", 440e6)


def timed(tool: str, *seconds: float, failure: str = "") -> list[Sample]:
    return [Sample("folder", "full", tool, seconds=each, cpu_seconds=each, failure=failure) for each in seconds]


@pytest.mark.parametrize(("values", "middle"), [([3.0], 3.0), ([9.0, 1.0, 2.0], 2.0), ([1.0, 2.0, 4.0, 100.0], 3.0), ([], None)])
def test_median_of_good_samples(values: list[float], middle: float | None) -> None:
    series = Series(tuple(timed("rsync", *values) + timed("rsync", 50.0, failure="exit 1")))
    assert series.middle("seconds") == middle
    assert series.failure == "exit 1"


def test_memory_counts_its_largest_sample() -> None:
    series = Series(tuple(Sample("memory", "full", "mirror", peak_bytes=each) for each in (5, 9, 7)))
    assert series.middle("peak_bytes") == 9


@pytest.mark.parametrize(
    ("theirs", "ours", "text"),
    [(6.0, 3.0, "met"), (6.0, 4.0, "met"), (6.0, 6.0, "missed by 50 %"), (6.0, 4.4, "missed by 10 %")],
)
def test_speed_goal(theirs: float, ours: float, text: str) -> None:
    verdict = judge(FASTER, Table(timed("restic", theirs) + timed("mirror", ours)))
    assert verdict.text == text
    assert verdict.measured == f"{theirs / ours:.2f} ×"


def test_share_goal_adds_up_its_steps() -> None:
    rows = [("b", "restic", 60), ("c", "restic", 40), ("b", "mirror", 10), ("c", "mirror", 29), ("a", "mirror", 10**9)]
    table = Table(Sample("nightly", step, tool, bytes=count) for step, tool, count in rows)
    assert judge(SMALLER, table).text == "met"
    table.add(Sample("nightly", "b", "mirror", bytes=32))  # the median of 10 and 32 is 21: 50 of 100
    assert judge(SMALLER, table).text == "missed by 25 %"


@pytest.mark.parametrize(("peak", "text"), [(440_000_000, "met"), (484_000_000, "missed by 10 %")])
def test_limit_goal(peak: int, text: str) -> None:
    assert judge(LEANER, Table([Sample("memory", "full", "mirror", peak_bytes=peak)])).text == text


@pytest.mark.parametrize(("count", "text"), [(5, "met"), (6, "missed by 20 %")])
def test_a_limit_of_requests(count: int, text: str) -> None:
    goal = Limit("requests", "tree-s3", "unchanged", "requests", 5)
    verdict = judge(goal, Table([Sample("tree-s3", "unchanged", "mirror", requests=count, bytes=0)]))
    assert (goal.wanted, verdict.measured, verdict.text) == ("≤ 5 requests", f"{count} requests", text)


def test_a_goal_is_not_judged_on_failed_or_missing_commands() -> None:
    assert judge(FASTER, Table(timed("mirror", 1.0))).text == "not judged: restic, full: not measured"
    not_built = Table([*timed("restic", 6.0), Sample("folder", "full", "mirror", failure=NOT_BUILT)])
    assert judge(FASTER, not_built).text == "not judged: mirror, full: not built"
    once_failed = Table(timed("restic", 6.0) + timed("mirror", 1.0) + timed("mirror", 0.1, failure="exit 23: x"))
    assert judge(FASTER, once_failed).met is None


def test_tables_are_aligned_and_whole() -> None:
    assert grid([["a", "bb"], ["ccc", "d"]]) == "| a   | bb |\n|-----|----|\n| ccc | d  |"
    table = Table(timed("restic", 6.0, 8.0, 7.0) + timed("mirror", 3.5) + timed("cp", 1.0, failure="exit 1: no"))
    lines = scenario_grid(table, "folder").splitlines()
    assert len({len(line) for line in lines}) == 1
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == ["full", "restic", "7.00", "6.00 – 8.00", "2.00", "7.00", ""]
    assert "exit 1: no" in lines[4]


def test_the_page_has_what_was_run() -> None:
    table = Table([*timed("restic", 6.0), *timed("mirror", 3.0)])
    verdicts = [judge(goal, table) for goal in (FASTER, SMALLER)]
    text = page(table, verdicts, Page("2026-01-01", "python tests/bench/run.py", 3, {"cores": "2"}, {"restic": "0.14.0"}))
    assert goal_grid(verdicts) in text
    assert [title for title in TITLES.values() if f"## {title}\n" in text] == [TITLES["folder"]]
    assert text.endswith("|\n")


def test_every_goal_is_measured_by_a_step_of_us_and_of_the_peer() -> None:
    steps = {("folder", tool.name, step) for tool in tools.FOLDER for step in [*tool.steps, tools.STORE]}
    steps |= {("s3", tool.name, step) for tool in tools.S3 for step in tool.steps}
    steps |= {("tree-folder", tool.name, step) for tool in tools.TREE_FOLDER for step in tool.steps}
    steps |= {("tree-s3", tool.name, step) for tool in tools.TREE_S3 for step in tool.steps}
    steps |= {("http", tool.name, step) for tool in tools.HTTP for step in tool.steps}
    steps |= {("nightly", tool.name, step) for tool in tools.NIGHTLY for step in tools.NIGHTS}
    for goal in tools.GOALS:
        if isinstance(goal, Ratio):
            asked = (goal.steps,) if isinstance(goal.steps, str) else goal.steps
            assert {(goal.scenario, tool, step) for tool in ("mirror", goal.peer) for step in asked} <= steps


def test_a_run_is_measured(tmp_path: Path) -> None:
    code = "import sys, time; t = time.process_time()\nwhile time.process_time() - t < 0.2: pass\nprint('odd end'); sys.exit(3)"
    run = measure.run([sys.executable, "-c", code], env=os.environ, cwd=tmp_path, output=tmp_path / "output")
    assert (run.code, run.last_line, run.peak_bytes) == (3, "odd end", 0)
    assert run.seconds >= 0.2
    assert 0.2 <= run.cpu_seconds < 2


def test_the_sampler_sees_a_grandchild_that_takes_100_megabytes(tmp_path: Path) -> None:
    inner = "import time; block = bytearray(b'x') * 100_000_000; time.sleep(0.4)"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {inner!r}])"
    run = measure.run([sys.executable, "-c", outer], env=os.environ, cwd=tmp_path, output=tmp_path / "output", memory=True)
    assert run.code == 0
    assert 100e6 <= run.peak_bytes < 200e6


def test_the_memory_of_a_receiver_with_four_clients(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    (site / "page.html").write_text("<p>")
    env = environment(tmp_path / "work")
    bench = Bench(tmp_path / "work", site, (), 1, env, our_command(env), 2)
    over_http.four_at_once(bench, tmp_path / "four")
    (sample,) = bench.table.series("http", tools.FOUR, "mirror").samples
    assert not sample.failure
    assert sample.peak_bytes is not None
    assert 20e6 < sample.peak_bytes < 150e6
    assert len(list((tmp_path / "four/root").glob("*/log/000000000001.json"))) == over_http.CLIENTS


def test_folder_sizes(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "file").write_bytes(bytes(5000))
    (tmp_path / "link").symlink_to("missing")
    measure.warm(tmp_path)
    assert measure.tree_bytes(tmp_path) == 5000 + len("missing")
    assert measure.disk_bytes(tmp_path) >= 5000


def test_generated_inputs_are_the_same_every_time_and_repeat_nothing(tmp_path: Path) -> None:
    for name in ("one", "two"):
        huge_file(tmp_path / name, (64 << 20) + 12345)
    data = (tmp_path / "one").read_bytes()
    assert data == (tmp_path / "two").read_bytes()
    assert len(data) == (64 << 20) + 12345
    assert data[:12345] != data[64 << 20 :]
    pages = tmp_path / "pages"
    pages.mkdir()
    many_files(pages, 200)
    assert len({path.read_bytes() for path in pages.iterdir()}) == 200


def test_a_byte_in_front(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"old")
    put_in_front(file, b"!")
    assert file.read_bytes() == b"!old"
    assert list(tmp_path.iterdir()) == [file]


def test_the_wire_counts_requests_and_what_clients_send() -> None:
    with scripted_http(lambda method, path, number: Answer(200, path.encode())) as server, wire_to(f"http://{server}") as wire:
        for method, body in (("GET", None), ("PUT", b"x" * 1000), ("PUT", b"x" * 24)):
            request = urllib.request.Request(f"{wire.endpoint}/a", body, method=method)
            with urllib.request.urlopen(request, timeout=10) as answer:
                assert answer.read() == b"/a"
        assert (wire.requests, wire.bytes) == (3, 1024)


def test_scenarios_by_name() -> None:
    assert main._names("tree,folder") == ["folder", "tree-folder", "tree-s3"]
    assert set(main.RUNNERS) == set(tools.SCENARIOS) == set(TITLES)
    with pytest.raises(argparse.ArgumentTypeError, match="no such scenario: trees"):
        main._names("trees")
