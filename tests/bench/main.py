"""The benchmark's command line: get the corpora, run the scenarios, print and write the result."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from corpus import fetch

from . import machine, memory, over_http, scenarios, trees
from .bench import SETTLE_SECONDS, Bench, environment, our_command, say
from .figures import judge
from .render import TITLES, Page, goal_grid, page, scenario_grid
from .tools import GOALS, MEMORY_WORKERS, SCENARIOS, TREES

RUNNERS = {
    "folder": scenarios.folder,
    "s3": scenarios.s3,
    "nightly": scenarios.nightly,
    "tree-folder": trees.tree_folder,
    "tree-s3": trees.tree_s3,
    "http": over_http.http,
    "memory": memory.memory,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """0 if all goals that could be judged are met, 1 if one is missed, 2 for a wrong call or a missing corpus."""
    options = _parse(arguments)
    try:
        corpora = fetch.fetch(options.corpus)
    except fetch.Missing as missing:
        sys.stderr.write(f"{missing}\n")
        return 2
    # Beside the corpora: on the same disk, and not on a /tmp in memory.
    work = Path(tempfile.mkdtemp(prefix="bench-", dir=options.corpus))
    try:
        env = environment(work)
        bench = Bench(work, corpora.rust_doc, corpora.nexts, options.rounds, env, our_command(env), MEMORY_WORKERS)
        about = _about(options, bench)
        for name in options.only:
            bench.clear(options.settle)
            RUNNERS[name](bench)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    verdicts = [judge(goal, bench.table) for goal in GOALS if goal.scenario in options.only]
    for name in options.only:
        say(f"\n{TITLES[name]}\n\n{scenario_grid(bench.table, name)}")
    say(f"\nGoals\n\n{goal_grid(verdicts)}")
    if options.write:
        options.write.write_text(page(bench.table, verdicts, about))
    return int(any(verdict.met is False for verdict in verdicts))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python tests/bench/run.py", description="Run mirror and its peers side by side.")
    parser.add_argument("--rounds", type=int, default=3, help="how often each timed command runs (default 3)")
    parser.add_argument(
        "--only", type=_names, default=list(SCENARIOS), help=f"of {','.join(SCENARIOS)}, or tree for both (default all)"
    )
    parser.add_argument("--write", type=Path, help="the page to write, docs/benchmarks.md")
    parser.add_argument(
        "--corpus", type=lambda text: Path(text).absolute(), default=fetch.default_folder(), help="where the corpora are or go"
    )
    parser.add_argument(
        "--settle", type=int, default=SETTLE_SECONDS, help=f"seconds to wait before each scenario (default {SETTLE_SECONDS})"
    )
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    return options


def _names(text: str) -> list[str]:
    names = [name for word in text.split(",") for name in (TREES if word == "tree" else (word,))]
    unknown = [name for name in names if name not in SCENARIOS]
    if unknown:
        raise argparse.ArgumentTypeError(f"no such scenario: {', '.join(unknown)}")
    return [name for name in SCENARIOS if name in names]


def _about(options: argparse.Namespace, bench: Bench) -> Page:
    """What the page says of this run; the command without the places of this machine."""
    command = f"python tests/bench/run.py --rounds {options.rounds}"
    if options.only != list(SCENARIOS):
        command += f" --only {','.join(options.only)}"
    if options.write:
        command += f" --write docs/{options.write.name}"
    facts = {**machine.describe(bench.work), **fetch.describe(options.corpus)}
    env = {**bench.env, "PATH": os.pathsep.join([bench.env["PATH"], "/usr/local/bin", "/usr/bin"])}
    return Page(date.today().isoformat(), command, options.rounds, facts, machine.versions(bench.mirror, env))
