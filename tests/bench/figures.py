"""Pure: what was measured, its medians and ratios, and whether a goal is met. No IO.

A `Sample` is one command of one round. Samples with the same (scenario, step, tool) are a `Series`; figures are medians over
its good samples. A goal compares our median with a peer's, or with a limit.

    >>> table = Table([Sample("folder", "full", "restic", seconds=6.0), Sample("folder", "full", "mirror", seconds=3.0)])
    >>> judge(Ratio("first sync", "folder", "full", "seconds", "restic", at_least=1.5), table).met
    True
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

US = "mirror"
NOT_BUILT = "not built"
METRICS = ("seconds", "cpu_seconds", "bytes", "peak_bytes", "requests")


@dataclass(frozen=True, slots=True)
class Sample:
    """One command, once. seconds: wall; cpu_seconds: user + system; bytes: of the store, added to it, or sent; peak_bytes: summed
    PSS; requests: to the server.

    failure: why it does not count, "" if it does.
    """

    scenario: str
    step: str
    tool: str
    seconds: float | None = None
    cpu_seconds: float | None = None
    bytes: int | None = None
    peak_bytes: int | None = None
    requests: int | None = None
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Series:
    """All samples of one tool at one step."""

    samples: tuple[Sample, ...]

    def values(self, metric: str) -> list[float]:
        """The values of the good samples, in the order of the rounds."""
        found = [getattr(sample, metric) for sample in self.samples if not sample.failure]
        return [float(value) for value in found if value is not None]

    def middle(self, metric: str) -> float | None:
        """The median, None if nothing was measured. Memory is a peak: there the largest counts."""
        values = self.values(metric)
        if not values:
            return None
        return max(values) if metric == "peak_bytes" else median(values)

    @property
    def failure(self) -> str:
        """The first failure, "" if all went well."""
        return next((sample.failure for sample in self.samples if sample.failure), "")


class Table:
    """All samples of a run, by (scenario, step, tool), in the order in which they came."""

    def __init__(self, samples: Iterable[Sample] = ()) -> None:
        self._samples: dict[tuple[str, str, str], list[Sample]] = {}
        for sample in samples:
            self.add(sample)

    def add(self, sample: Sample) -> None:
        self._samples.setdefault((sample.scenario, sample.step, sample.tool), []).append(sample)

    def series(self, scenario: str, step: str, tool: str) -> Series:
        """The samples of one tool at one step; empty if there are none."""
        return Series(tuple(self._samples.get((scenario, step, tool), ())))

    def steps(self, scenario: str) -> list[str]:
        """The steps of a scenario in the order in which they were first measured."""
        return list(dict.fromkeys(step for where, step, _ in self._samples if where == scenario))

    def tools(self, scenario: str, step: str) -> list[str]:
        return [tool for where, what, tool in self._samples if (where, what) == (scenario, step)]


@dataclass(frozen=True, slots=True)
class Ratio:
    """Ours against a peer's. at_least: peer ÷ ours (speed); at_most: ours ÷ peer (share of its time or bytes).

    steps: more than one are added up, each by its median.
    """

    name: str
    scenario: str
    steps: str | tuple[str, ...]
    metric: str
    peer: str
    at_least: float = 0.0
    at_most: float = 0.0

    @property
    def wanted(self) -> str:
        if self.at_least:
            return f"≥ {self.at_least:g} × {self.peer}'s speed"
        return f"≤ {self.at_most:g} × {self.peer}'s {'bytes' if self.metric == 'bytes' else 'time'}"


@dataclass(frozen=True, slots=True)
class Limit:
    """Our figure at one step against a fixed limit, in bytes or requests."""

    name: str
    scenario: str
    steps: str
    metric: str
    at_most: float

    @property
    def wanted(self) -> str:
        return f"≤ {_figure(self.metric, self.at_most)}"


Goal = Ratio | Limit


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a goal. measured: the ratio or figure as text; met: None if it could not be judged; why: then the reason."""

    goal: Goal
    measured: str
    met: bool | None
    why: str = ""

    @property
    def text(self) -> str:
        if self.met is None:
            return f"not judged: {self.why}"
        return "met" if self.met else f"missed by {self.why}"


def judge(goal: Goal, table: Table) -> Verdict:
    """Compare medians. Any failed sample of ours makes the goal unjudged: a command that fails is not fast."""
    steps = (goal.steps,) if isinstance(goal.steps, str) else goal.steps
    ours, missing = _total(table, goal.scenario, steps, US, goal.metric)
    if ours is None:
        return Verdict(goal, "–", None, missing)
    if isinstance(goal, Limit):
        return _verdict(goal, ours / goal.at_most, 1.0, _figure(goal.metric, ours))
    theirs, missing = _total(table, goal.scenario, steps, goal.peer, goal.metric)
    if theirs is None:
        return Verdict(goal, "–", None, missing)
    if goal.at_least:
        ratio = theirs / ours if ours else float("inf")
        return _verdict(goal, goal.at_least / ratio if ratio else float("inf"), 1.0, f"{ratio:.2f} ×")
    ratio = ours / theirs if theirs else float("inf")
    return _verdict(goal, ratio, goal.at_most, f"{ratio:.2f} ×")


def _figure(metric: str, value: float) -> str:
    return f"{value:.0f} requests" if metric == "requests" else f"{value / 1e6:.0f} MB"


def _verdict(goal: Goal, figure: float, at_most: float, measured: str) -> Verdict:
    return Verdict(goal, measured, figure <= at_most, "" if figure <= at_most else f"{(figure / at_most - 1) * 100:.0f} %")


def _total(table: Table, scenario: str, steps: tuple[str, ...], tool: str, metric: str) -> tuple[float | None, str]:
    total = 0.0
    for step in steps:
        series = table.series(scenario, step, tool)
        value = series.middle(metric)
        if series.failure:
            return None, f"{tool}, {step}: {series.failure}"
        if value is None:
            return None, f"{tool}, {step}: not measured"
        total += value
    return total, ""
