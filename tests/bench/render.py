"""Pure: a run's table and goals as text for the terminal and as the page docs/benchmarks.md. No IO."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .figures import US, Series, Table, Verdict

TITLES = {
    "folder": "Into a folder",
    "s3": "To S3",
    "nightly": "Five nights of the npm package `next`",
    "tree-folder": "A tree in a folder",
    "tree-s3": "A tree on S3",
    "http": "Over HTTP",
    "memory": "Peak memory",
}
NOTES = {
    "folder": "Debian's `rust-doc`. `×` is the tool's median over ours: above 1 we are faster or smaller.",
    "s3": (
        "Debian's `rust-doc`, to a SeaweedFS server on the same machine, which takes its share of the same cores. rclone and s5cmd "
        "ran in the first round only."
    ),
    "nightly": (
        "Each night the site folder is replaced by the next release with `rsync -a --checksum --delete`; bytes are what the store "
        "grew by. The first night is the full copy and is not part of the goal."
    ),
    "tree-folder": (
        "Debian's `rust-doc` as a folder that can be served, then five releases of `next` one after another; `cp` and `rsync` are "
        "followed by `sync -f`, since we are durable. Of us the bytes are what history takes after each release."
    ),
    "tree-s3": (
        "Debian's `rust-doc` as objects that can be served, on a SeaweedFS server on the same machine. Requests and bytes were "
        "counted between client and server, in a run of its own. rclone and s5cmd ran in the first round only."
    ),
    "http": (
        "Debian's `rust-doc` into a target of a `mirror serve` on the same machine, which takes its share of the same cores, each "
        "request and answer signed; beside it the same sync into a folder, packed and as a tree. We restore from nginx over that "
        "folder, restic from "
        "SeaweedFS. Four clients sync into a target of their own each; the receiver's memory is RSS, sampled every 50 ms."
    ),
    "memory": "PSS summed over all processes of the command, sampled every 50 ms; the largest sample. One round.",
}
_COLUMNS = {
    "seconds": ("seconds", lambda value: f"{value:.2f}"),
    "cpu_seconds": ("CPU s", lambda value: f"{value:.2f}"),
    "bytes": ("MB", lambda value: f"{value / 1e6:.2f}"),
    "peak_bytes": ("peak MB", lambda value: f"{value / 1e6:.0f}"),
    "requests": ("requests", lambda value: f"{value:.0f}"),
}


@dataclass(frozen=True, slots=True)
class Page:
    """All that the page says besides the table. machine, versions: two-column tables; date: ISO; rounds: of every timed command."""

    date: str
    command: str
    rounds: int
    machine: Mapping[str, str]
    versions: Mapping[str, str]


def grid(rows: Sequence[Sequence[str]]) -> str:
    """Rows, the first of them the heading, as a Markdown table with columns padded to equal width."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def scenario_grid(table: Table, scenario: str) -> str:
    """Every step and tool of one scenario: medians, the spread of the time, ratios to ours, failures."""
    rows = _rows(table, scenario)
    used = [metric for metric in _COLUMNS if any(series.values(metric) for _, _, series in rows)]
    heading = ["step", "tool"]
    for metric in used:
        heading += _heading(metric)
    noted = any(series.failure for _, _, series in rows)
    lines = [[*heading, *(["note"] if noted else [])]]
    for step, tool, series in rows:
        ours = table.series(scenario, step, US)
        cells = [cell for metric in used for cell in _cells(series, ours if tool != US else Series(()), metric)]
        lines.append([step, tool, *cells, *([series.failure] if noted else [])])
    return grid(lines)


def goal_grid(verdicts: Iterable[Verdict]) -> str:
    rows = [["goal", "wanted", "measured", "verdict"]]
    rows += [[verdict.goal.name, verdict.goal.wanted, verdict.measured, verdict.text] for verdict in verdicts]
    return grid(rows)


def page(table: Table, verdicts: Sequence[Verdict], about: Page) -> str:
    """docs/benchmarks.md, whole, or a page like it of some scenarios only."""
    parts = [
        "# Benchmarks",
        f"Measured on {about.date} by `{about.command}`, which writes this page; do not edit it by hand.",
        f"All tools ran side by side, in turn within each of {about.rounds} round(s), the source in the page cache before each "
        "command, each into fresh folders or buckets, and `sync` between the commands. Times are medians of wall time; CPU is user "
        "and system time of the whole command; MB are 10⁶ bytes. What was restored in the first round was compared with the "
        "source, content and metadata.",
        "## Goals",
        goal_grid(verdicts),
    ]
    for scenario, title in TITLES.items():
        if table.steps(scenario):
            parts += [f"## {title}", NOTES[scenario], scenario_grid(table, scenario)]
    parts += [
        "## Machine",
        grid([["what", "value"], *([key, value] for key, value in about.machine.items())]),
        "## Versions",
        grid([["tool", "version"], *([key, value] for key, value in about.versions.items())]),
    ]
    return "\n\n".join(parts) + "\n"


def _rows(table: Table, scenario: str) -> list[tuple[str, str, Series]]:
    return [
        (step, tool, table.series(scenario, step, tool)) for step in table.steps(scenario) for tool in table.tools(scenario, step)
    ]


def _heading(metric: str) -> list[str]:
    """The columns of a metric, in the order of `_cells`."""
    return [_COLUMNS[metric][0], *(["min – max"] if metric == "seconds" else []), *(["×"] if metric != "cpu_seconds" else [])]


def _cells(series: Series, ours: Series, metric: str) -> list[str]:
    """The median, for time its spread, and, but for CPU, the ratio to ours."""
    show = _COLUMNS[metric][1]
    values, middle, our_middle = series.values(metric), series.middle(metric), ours.middle(metric)
    cells = ["" if middle is None else show(middle)]
    if metric == "seconds":
        cells.append(f"{show(min(values))} – {show(max(values))}" if values else "")
    if metric != "cpu_seconds":
        cells.append(f"{middle / our_middle:.2f}" if middle is not None and our_middle else "")
    return cells
