"""The scenario of HTTP: into a target of `mirror serve` and into a folder, in turn; back from nginx; four clients at once.

The rules are those of `scenarios.py`. The server is a process of its own with a key, on loopback: every request and every answer is
signed. It is started anew for each round, and for the four clients, whose memory is measured.
"""

from __future__ import annotations

import re
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from nginx import Nginx, binary
from servers import SeaweedFS, comes_up

from . import measure, tools
from .bench import Bench, Places, say
from .figures import NOT_BUILT, US, Sample
from .scenarios import check_restored, places_of, s3_environment
from .tools import FOUR, FULL, INTO_TREE, RESTORE, TO_FOLDER, UNCHANGED, Tool

CLIENTS = 4
OPEN = "server { listen 80; root /srv/www; default_type application/octet-stream; }"  # plain files


@dataclass(frozen=True, slots=True)
class Receiver:
    """A `mirror serve` that runs. url: where it listens; root: the folder of its targets; client: what a client's environment has
    more."""

    process: subprocess.Popen[bytes]
    url: str
    root: Path
    client: Mapping[str, str]


def http(bench: Bench) -> None:
    """rust-doc into a target of a server, again unchanged, and back from nginx."""
    for number in range(bench.rounds):
        say(f"http, round {number + 1} of {bench.rounds}")
        if not bench.mirror:
            bench.add(Sample("http", FULL, US, failure=NOT_BUILT))
            return
        base = bench.fresh(f"http-{number}")
        places = {tool.name: places_of(bench, base, tool) for tool in tools.HTTP}
        _to(bench, base / "receiver", places)
        _back(bench, base / "weed", places, check=number == 0)
        four_at_once(bench, base / "four")


def _to(bench: Bench, folder: Path, places: dict[str, Places]) -> None:
    """Both syncs of every tool that is there to be compared with."""
    ours, to_folder, rsync = (_tool(name) for name in (US, TO_FOLDER, "rsync"))
    bench.prepare(rsync, places[rsync.name])
    with receiver(bench, folder) as server:
        there = replace(bench, env={**bench.env, **server.client}, table=bench.table)
        to_server = replace(places[US], endpoint=made(bench, server, "www"))
        made(bench, server, "www-tree", "tree")
        for step, all_tools in ((FULL, (to_folder, ours)), (UNCHANGED, (rsync, to_folder, ours)), (INTO_TREE, (to_folder, ours))):
            for tool in all_tools:
                measure.warm(bench.rust_doc)
                if tool is ours:
                    there.step("http", tool, step, to_server)
                else:
                    bench.step("http", tool, step, places[tool.name])


def _back(bench: Bench, folder: Path, places: dict[str, Places], *, check: bool) -> None:
    """restic from SeaweedFS, we from nginx over the target that was made in a folder. Each server runs for its client alone."""
    restic, ours = _tool("restic"), _tool(US)
    with SeaweedFS(folder) as weed:
        there = replace(bench, env={**bench.env, **s3_environment(weed)}, table=bench.table)
        in_bucket = replace(places[restic.name], bucket=weed.new_bucket(), endpoint=weed.endpoint_url)
        _restored(there, restic, in_bucket, check)
    try:
        binary()
    except pytest.skip.Exception as missing:
        bench.add(Sample("http", RESTORE, US, failure=str(missing)))
        return
    with Nginx(folder.with_name("nginx"), places[TO_FOLDER].store, OPEN) as nginx:
        _restored(bench, ours, replace(places[US], endpoint=f"http://{nginx.address}"), check)


def _restored(bench: Bench, tool: Tool, places: Places, check: bool) -> None:
    """What a tool needs before it can restore, and the restore."""
    bench.prepare(tool, places)
    if bench.step("http", tool, RESTORE, places) and check:
        check_restored(bench, "http", tool, places)


def four_at_once(bench: Bench, folder: Path) -> None:
    """Clients that sync into a target of their own each, all at once: the receiver's largest memory meanwhile."""
    with receiver(bench, folder) as server:
        urls = [made(bench, server, f"site-{number}") for number in range(CLIENTS)]
        commands = [bench.command(_tool(US).steps[FULL], Places(bench.rust_doc, folder, folder, endpoint=url)) for url in urls]
        sampler = measure.MemorySampler(server.process.pid, measure.rss)
        with open(folder / "output", "wb") as sink:
            env = {**bench.env, **server.client}
            clients = [subprocess.Popen(command, env=env, cwd="/", stdout=sink, stderr=sink) for command in commands]
            codes = [client.wait() for client in clients]
        failure = f"exit {codes} of the clients" if any(codes) else ""
        bench.add(Sample("http", FOUR, US, peak_bytes=sampler.stop(), failure=failure))


@contextmanager
def receiver(bench: Bench, folder: Path) -> Iterator[Receiver]:
    """A `mirror serve` with one key, on a port that it chose."""
    root, keys, log = folder / "root", folder / "keys.json", folder / "log"
    root.mkdir(parents=True)
    command = [*bench.mirror, "key", "new", "bench", "--rights", "read,append,publish", "--keys", str(keys)]
    key = folder / "key"
    key.write_bytes(subprocess.run(command, env=dict(bench.env), cwd="/", capture_output=True, check=True).stdout)
    key.chmod(0o600)
    with open(log, "wb") as sink:
        process = subprocess.Popen(
            [*bench.mirror, "serve", str(root), "--keys", str(keys), "--listen", "127.0.0.1:0"],
            env={**bench.env, "MIRROR_CACHE_DIR": str(folder / "cache")},
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            start_new_session=True,
        )
    try:
        found: list[str] = []

        def is_up() -> bool:
            found[:] = re.findall(r"listening on (http://[\d.:]+)", log.read_text())
            return bool(found)

        assert comes_up(process, is_up), f"mirror serve did not come up:\n{log.read_text()}"
        yield Receiver(process, found[0], root, {"MIRROR_KEY_FILE": str(key)})
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def made(bench: Bench, server: Receiver, name: str, layout: str = "packed") -> str:
    """The URL of a target that was made there, as `mirror init` does it."""
    command = [*bench.mirror, "init", str(server.root / name), "--layout", layout]
    subprocess.run(command, env=dict(bench.env), cwd="/", check=True, capture_output=True)
    return f"{server.url}/{name}"


def _tool(name: str) -> Tool:
    return next(tool for tool in tools.HTTP if tool.name == name)
