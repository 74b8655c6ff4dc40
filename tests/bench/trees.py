"""The scenarios of trees: a folder and an S3 prefix that can be served, against tools that keep no history.

The rules are those of `scenarios.py`. What is counted (requests, bytes sent) is counted in runs of their own, between client and
server, and never timed.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

from servers import SeaweedFS

from . import tools
from .bench import Bench, Places, differences, say
from .figures import US, Sample
from .memory import huge_file
from .scenarios import each_step, nights, places_of, s3_environment
from .tools import FULL, GROWN, INSERTED, NIGHT, NIGHTS, REQUESTS, UNCHANGED, Tool
from .wire import wire_to

GROWN_BYTES = 1 << 30


def tree_folder(bench: Bench) -> None:
    """rust-doc into a folder, again unchanged, and back; then five releases of next into another."""
    for number in range(bench.rounds):
        say(f"tree-folder, round {number + 1} of {bench.rounds}")
        base = bench.fresh(f"tree-folder-{number}")
        places = {tool.name: places_of(bench, base, tool) for tool in tools.TREE_FOLDER}
        done = each_step(bench, "tree-folder", tools.TREE_FOLDER, places, check=number == 0)
        if US in done and number == 0:
            check_live(bench, places[US], FULL)
        releases = [tool for tool in tools.TREE_FOLDER if NIGHT in tool.steps]
        there = nights(bench, "tree-folder", releases, bench.fresh(f"tree-nights-{number}"), ".mirror")
        if US in done and number == 0:
            check_live(bench, there[US], NIGHTS[-1])


def tree_s3(bench: Bench) -> None:
    """rust-doc to a prefix of a SeaweedFS of this round, and again unchanged; in the first round what is counted as well."""
    for number in range(bench.rounds):
        say(f"tree-s3, round {number + 1} of {bench.rounds}")
        base = bench.fresh(f"tree-s3-{number}")
        with SeaweedFS(base / "weed") as server:
            there = replace(bench, env={**bench.env, **s3_environment(server)}, table=bench.table)
            running = [tool for tool in tools.TREE_S3 if number == 0 or not tool.once]
            places = {
                tool.name: replace(places_of(bench, base, tool), bucket=server.new_bucket(), endpoint=server.endpoint_url)
                for tool in running
            }
            done = each_step(there, "tree-s3", running, places, check=False)
            if number == 0 and US in done:
                ours = next(tool for tool in running if tool.name == US)
                _counted(there, ours, places[US], UNCHANGED, REQUESTS)
                _grow(there, server, ours, base)


def _grow(bench: Bench, server: SeaweedFS, tool: Tool, base: Path) -> None:
    """One file of 1 GiB, and then a byte in front of it: what is sent for it."""
    places = replace(places_of(bench, base / "grown", tool), src=base / "grown" / "site", bucket=server.new_bucket())
    places = replace(places, endpoint=server.endpoint_url)
    places.src.mkdir(parents=True)
    file = places.src / "grown.bin"
    huge_file(file, GROWN_BYTES)
    if bench.step("tree-s3", tool, GROWN, places):
        put_in_front(file, b"!")
        _counted(bench, tool, places, GROWN, INSERTED)


def _counted(bench: Bench, tool: Tool, places: Places, step: str, name: str) -> None:
    """A step by the way that counts."""
    with wire_to(places.endpoint) as wire:
        run = bench.run(tool.steps[step], replace(places, endpoint=wire.endpoint), cwd=places.src)
    failure = f"exit {run.code}: {run.last_line[:120]}" if run and run.code else "" if run else "not installed"
    bench.add(Sample("tree-s3", name, tool.name, bytes=wire.bytes, requests=wire.requests, failure=failure))


def put_in_front(file: Path, data: bytes) -> None:
    """The same file with these bytes before all that it had."""
    fresh = file.with_name(f"{file.name}.new")
    with open(file, "rb") as old, open(fresh, "wb") as new:
        new.write(data)
        shutil.copyfileobj(old, new, 16 << 20)
    os.replace(fresh, file)


def check_live(bench: Bench, places: Places, name: str) -> None:
    """A live folder that is not the source is a failure of ours."""
    found = differences(places.src, places.store, bench.env, "--exclude=/.mirror")
    if found:
        say("\n".join(found[:20]))
        bench.add(Sample("tree-folder", name, US, failure=f"live differs from the source in {len(found)} paths"))
