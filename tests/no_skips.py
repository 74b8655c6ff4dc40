"""A pytest plugin for CI: a skipped test, or a skipped module, is a failure. Loaded by tests/run.sh when CI is set.

An expected failure (`xfail`) is not a skip: it runs. Nor are tests that a marker deselects: pytest counts them.
"""

from __future__ import annotations

from collections.abc import Generator

import pytest


def _refuse(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.outcome == "skipped" and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"nothing may be skipped in CI: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that skips, in its set-up or its body, fails."""
    report = yield
    _refuse(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """A module that skips while it is collected (`importorskip`) fails."""
    report = yield
    _refuse(report)
    return report
