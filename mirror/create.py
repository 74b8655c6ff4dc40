"""`mirror init`: make an empty target, so that a later `sync` can be one that may not make any.

    report = init(TargetSpec(StoreSpec("/backup/www")), Making(layout="packed", site="www"))
    report.uuid, report.made

Doing it again does nothing: what is there stays, and the report says so.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mirror.events import Job, RunStarted
from mirror.making import Making
from mirror.target import TargetSpec, open_target


@dataclass
class InitReport:
    """The target as it is now. made: this run made it."""

    target: str = ""
    site: str = ""
    layout: str = ""
    uuid: str = ""
    made: bool = False

    @property
    def exit_code(self) -> int:
        """Always 0: whatever is wrong is raised."""
        return 0


def init(target: TargetSpec, making: Making | None = None, job: Job | None = None) -> InitReport:
    """Make the target unless it is there; UsageError when it is there and of another site or layout. Otherwise as `open_target`."""
    # Who says `init` wants it made, also where mirror.toml has it.
    making, job = replace(making or Making(), named=""), job or Job("init")
    job.say(RunStarted("init", "", target.store.url))
    with open_target(target, making=making) as opened:
        job.site = opened.site
        return InitReport(opened.url, opened.site, str(opened.info["layout"]), opened.uuid, opened.new)
