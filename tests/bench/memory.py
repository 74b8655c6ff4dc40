"""The memory scenario: the peak PSS of a sync, an unchanged run and a restore, of the corpus and of two inputs large in one way."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from blake3 import blake3
from servers import SeaweedFS

from . import measure, tools
from .bench import Bench, Places, say
from .figures import US, Sample
from .scenarios import check_restored, s3_environment
from .tools import FULL, HUGE, MANY, ON_S3, RESTORE, RUST_DOC, UNCHANGED, Tool

MANY_FILES = 300_000
HUGE_BYTES = 8 << 30
BLOCK_BYTES = 64 << 20
# The 8 GiB file, its packs, what is restored, and room for the rest.
FREE_BYTES = 3 * HUGE_BYTES + (4 << 30)


def memory(bench: Bench) -> None:
    """One round: a peak is not a median."""
    mirror = [tool for tool in tools.MEMORY if tool.name == US]
    _measure(bench, RUST_DOC, tools.MEMORY, bench.rust_doc)
    base = bench.fresh("memory-s3")
    with SeaweedFS(base / "weed") as server:
        there = replace(bench, env={**bench.env, **s3_environment(server)}, table=bench.table)
        _measure(there, ON_S3, tools.MEMORY_S3, bench.rust_doc, server)
    shutil.rmtree(base)
    if not bench.mirror:
        for what in (MANY, HUGE):
            bench.step("memory", mirror[0], FULL, Places(bench.work, bench.work, bench.work), name=f"{what}: {FULL}", memory=True)
        return
    say("writing 300,000 files")
    _measure(bench, MANY, mirror, many_files(bench.fresh("many"), MANY_FILES))
    shutil.rmtree(bench.work / "many")
    free = shutil.disk_usage(bench.work).free
    if free < FREE_BYTES:
        bench.add(Sample("memory", f"{HUGE}: {FULL}", US, failure=f"needs {FREE_BYTES >> 30} GiB free, there are {free >> 30}"))
        return
    say("writing one file of 8 GiB")
    huge_file(bench.fresh("huge") / "huge.bin", HUGE_BYTES)
    _measure(bench, HUGE, mirror, bench.work / "huge")
    shutil.rmtree(bench.work / "huge")


def _measure(bench: Bench, what: str, all_tools: Sequence[Tool], src: Path, server: SeaweedFS | None = None) -> None:
    """All steps of each tool with the sampler on, one tool after another, so that only one store is on the disk."""
    measure.warm(src)
    for tool in all_tools:
        base = bench.fresh(f"memory-{what}-{tool.name}".replace(" ", "-"))  # mirror remembers what it made, and where
        (base / "out").mkdir()
        places = Places(src, base / "store", base / "out")
        if server:
            places = replace(places, bucket=server.new_bucket(), endpoint=server.endpoint_url)
        if tool.name != US or bench.mirror:
            bench.prepare(tool, places)
        for step in (FULL, UNCHANGED, RESTORE):
            name = f"{what}: {step}"
            if not bench.step("memory", tool, step, places, name=name, memory=True):
                break
            if step == RESTORE and tool.name == US:
                check_restored(bench, "memory", tool, places, name)
        shutil.rmtree(base)


def many_files(folder: Path, count: int) -> Path:
    """So many small files in one folder, each with content of its own; names and bytes are the same on every run."""
    for number in range(count):
        (folder / f"page-{number:06}.html").write_bytes(b"<html><title>%d</title>%s</html>\n" % (number, b"." * (number % 97)))
    return folder


def huge_file(path: Path, size: int) -> None:
    """A file of `size` bytes in which nothing repeats over distance: of every 64 MiB half is random, half compresses to a half.

    BLAKE3's extended output makes it: the same bytes on every run, about 1 GB/s a core.
    """
    random = BLOCK_BYTES // 2
    with open(path, "wb", buffering=0) as file:
        for number in range(-(-size // BLOCK_BYTES)):
            bits = blake3(b"huge file %d" % number).digest(length=random + random // 2)
            block = bits[:random] + bits[random:].hex().encode()
            file.write(memoryview(block)[: min(BLOCK_BYTES, size - number * BLOCK_BYTES)])
