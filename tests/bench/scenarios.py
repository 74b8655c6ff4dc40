"""The timed scenarios: into a folder, to S3, five nights. Each round runs every step for one tool after another: A B C A B C.

What a round made stays until its scenario is over (see `Bench.clear`): no round runs over the fresh graves of the one before.
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from servers import SeaweedFS

from . import measure, tools
from .bench import Bench, Places, differences, say
from .figures import US, Sample
from .tools import FULL, NIGHT, NIGHTS, ON_DISK, RESTORE, STORE, UNCHANGED, Tool


def folder(bench: Bench) -> None:
    """rust-doc into a folder or a repository in a folder, again unchanged, and back."""
    for number in range(bench.rounds):
        say(f"folder, round {number + 1} of {bench.rounds}")
        base = bench.fresh(f"folder-{number}")
        places = {tool.name: places_of(bench, base, tool) for tool in tools.FOLDER}
        done = each_step(bench, "folder", tools.FOLDER, places, check=number == 0)
        for tool in tools.FOLDER:
            if tool.store and tool.name in done:
                store = places[tool.name].store
                bench.add(Sample("folder", STORE, tool.name, bytes=measure.tree_bytes(store)))
                bench.add(Sample("folder", ON_DISK, tool.name, bytes=measure.disk_bytes(store)))


def s3(bench: Bench) -> None:
    """rust-doc to S3 on a SeaweedFS of this round, again unchanged, and back."""
    for number in range(bench.rounds):
        say(f"s3, round {number + 1} of {bench.rounds}")
        base = bench.fresh(f"s3-{number}")
        with SeaweedFS(base / "weed") as server:
            there = replace(bench, env={**bench.env, **s3_environment(server)}, table=bench.table)
            places = {
                tool.name: replace(places_of(bench, base, tool), bucket=server.new_bucket(), endpoint=server.endpoint_url)
                for tool in tools.S3
            }
            running = [tool for tool in tools.S3 if number == 0 or not tool.once]
            done = each_step(there, "s3", running, places, check=number == 0)
            for tool in running:
                if tool.store and tool.name in done:
                    bench.add(Sample("s3", STORE, tool.name, bytes=bucket_bytes(server, places[tool.name].bucket)))


def nightly(bench: Bench) -> None:
    """Five releases of next as five nights: what each night adds to the store, and how long it takes."""
    for number in range(bench.rounds):
        say(f"nightly, round {number + 1} of {bench.rounds}")
        base = bench.fresh(f"nightly-{number}")
        nights(bench, "nightly", tools.NIGHTLY, base)


def nights(bench: Bench, scenario: str, all_tools: Sequence[Tool], base: Path, store: str = "") -> dict[str, Places]:
    """Five releases of next, one after another, for each tool; what the store (a folder of that name in it) grew by. Where each
    tool worked."""
    site = base / "site"
    places = {tool.name: replace(places_of(bench, base, tool), src=site) for tool in all_tools}
    site.mkdir()
    for tool in all_tools:
        if tool.name != US or bench.mirror:
            bench.prepare(tool, places[tool.name])
    sizes = {tool.name: [measure.tree_bytes(places[tool.name].store / store)] for tool in all_tools}
    for night, release in zip(NIGHTS, bench.nexts, strict=True):
        subprocess.run(["rsync", "-a", "--checksum", "--delete", f"{release}/", f"{site}/"], check=True)
        for tool in all_tools:
            measure.warm(site)
            if bench.step(scenario, tool, NIGHT, places[tool.name], name=night):
                sizes[tool.name].append(measure.tree_bytes(places[tool.name].store / store))
    for tool in all_tools:
        added = [after - before for before, after in pairwise(sizes[tool.name])]
        for night, grown in zip(NIGHTS, added, strict=False):
            if tool.store or tool.name == US:
                bench.add(Sample(scenario, night, tool.name, bytes=grown))
    return places


def each_step(bench: Bench, scenario: str, all_tools: Sequence[Tool], places: dict[str, Places], *, check: bool) -> set[str]:
    """Every step of every tool, the steps outermost. The names of the tools whose first step went well."""
    done = set()
    for tool in all_tools:
        if tool.name != US or bench.mirror:
            bench.prepare(tool, places[tool.name])
        measure.warm(places[tool.name].src)
        if bench.step(scenario, tool, FULL, places[tool.name]):
            done.add(tool.name)
    for step in (UNCHANGED, RESTORE):
        for tool in all_tools:
            if step in tool.steps and tool.name in done:
                good = bench.step(scenario, tool, step, places[tool.name])
                if good and check and step == RESTORE:
                    check_restored(bench, scenario, tool, places[tool.name])
    return done


def check_restored(bench: Bench, scenario: str, tool: Tool, places: Places, name: str = RESTORE) -> None:
    """A restore that is not the source is a failure of that tool; of a peer the time of the top folder is not asked."""
    found = [line for line in differences(places.src, places.out, bench.env) if tool.name == US or not line.endswith(" ./")]
    if found:
        say("\n".join(found[:20]))
        bench.add(Sample(scenario, name, tool.name, failure=f"restored differs from the source in {len(found)} paths"))


def s3_environment(server: SeaweedFS) -> dict[str, str]:
    """Credentials as every S3 tool reads them, and the server as rclone's default S3 remote."""
    return {
        "AWS_ACCESS_KEY_ID": server.admin.access_key,
        "AWS_SECRET_ACCESS_KEY": server.admin.secret_key,
        "AWS_REGION": server.region,
        "AWS_DEFAULT_REGION": server.region,
        "RCLONE_S3_PROVIDER": "SeaweedFS",
        "RCLONE_S3_ENDPOINT": server.endpoint_url,
        "RCLONE_S3_ENV_AUTH": "true",
    }


def bucket_bytes(server: SeaweedFS, bucket: str) -> int:
    """The sum of the sizes of all objects of a bucket."""
    pages = server.client().get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return sum(entry["Size"] for page in pages for entry in page.get("Contents", ()))


def places_of(bench: Bench, base: Path, tool: Tool) -> Places:
    """A tool's own folders; the store itself is left for the tool to make."""
    out = base / tool.name / "out"
    out.mkdir(parents=True)
    return Places(src=bench.rust_doc, store=base / tool.name / "store", out=out)
