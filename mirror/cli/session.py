"""One command from its first word to its exit code: who is told what, on which stream, and what an error looks like.

Reports, notices and problems go to stderr; data and the plan of a dry run to stdout; with --json all goes to stdout as JSON Lines,
and errors to stderr as well. With -q nothing is said unless the exit code is not 0; then what was held back is.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from mirror import config
from mirror.cli.changes import ChangesFile
from mirror.cli.render import problem_lines, report_lines
from mirror.cli.streams import Gone, Out, complain, translated
from mirror.config import Settings
from mirror.errors import MirrorError, UsageError, worst_exit
from mirror.events import Answered, Change, Event, Job, Notice, Problem, ProblemFound, RunStarted, Stamped
from mirror.progress import Bar, JsonLines, LogFile, members, sentence

_NAMED: Final = 20  # problems that are named when no report has them
_PLAIN: Final = ("snapshots", "ls", "cat", "sums", "filter-test", "key")  # whoever calls these wants the data and nothing else


class Session:
    """What one command talks through. `job` goes to the verb; `finish` or `fail` gives the exit code.

    plan: the changes that are heard are data (a dry run, a diff).
    """

    def __init__(self, verb: str, command: str, out: Out) -> None:
        self.verb, self.command, self.out = verb, command, out
        self.asked = Settings({})
        self.quiet = self.verbose = self.plan = False
        self.json: JsonLines | None = None
        self.bar: Bar | None = None
        self.log: LogFile | None = None
        self.changes: ChangesFile | None = None
        self.job = Job(verb)
        self._held: list[str] = []
        self._early: list[Notice] = []
        self._started = False
        self._problems: list[Problem] = []
        self._kinds: Counter[str] = Counter()
        self.codes: set[int] = set()

    def speak_json(self) -> None:
        """Tell everything as JSON Lines, too."""
        self.json = self.json or JsonLines(self.out)

    def begin(self, asked: Settings) -> None:
        """Heed what was asked for. UsageError."""
        self.asked = asked
        self.quiet, self.verbose = asked.switch("quiet"), asked.switch("verbose")
        if asked.switch("json"):
            self.speak_json()
        asked.text("config")  # heeded already: whose settings these are
        self.log = _log_file(asked.text("log_file"))
        self.changes = ChangesFile(name) if (name := asked.text("changes_file")) else None
        if not self.quiet and sys.stderr is not None and sys.stderr.isatty():
            self.bar = Bar(sys.stderr)
        self.job.listeners = [each for each in (self.json, self.bar, self.log, self.changes, self._hear) if each]
        self.job.each_path = bool(self.json or self.log or self.changes or self.verbose)

    # -- while it runs -----------------------------------------------------------------------------------------------

    def notice(self, kind: str, text: str) -> None:
        """Something to know; said after the ends of the run, which come first."""
        if self._started:
            self.job.say(Notice(kind, text))
        else:
            self._early.append(Notice(kind, text))

    def note(self, text: str) -> None:
        """A line to people; held back by -q."""
        if self.quiet:
            self._held.append(text)
        else:
            self._above_bar(text)

    def data(self, name: str, values: dict[str, Any], text: str | bytes) -> None:
        """A piece of data: `text` (a line, or bytes as they are), or with --json an object."""
        if self.json:
            self.json.data(name, values)
            self._check_reader()
        else:
            self._show(text)

    def _hear(self, stamped: Stamped) -> None:
        event = stamped.event
        if isinstance(event, RunStarted):
            if self.verb not in _PLAIN or self.verbose:
                self.note(sentence(event))
            self._started = True
            for notice in self._early:
                self.job.say(notice)
        elif isinstance(event, Change):
            self._change(event)
        elif isinstance(event, ProblemFound):
            if event.problem.kind != "skipped":  # as it was asked to be: told by -v alone
                self._kinds[event.problem.kind] += 1
                self.codes.add(event.problem.exit_code)
                if len(self._problems) < _NAMED:
                    self._problems.append(event.problem)
            if self.verbose and not self.quiet:
                self._above_bar(sentence(event))
        elif isinstance(event, Answered):
            if self.verbose and not self.quiet:
                self._above_bar(sentence(event))
        elif isinstance(event, Notice):
            self.note(sentence(event))

    def _change(self, event: Event) -> None:
        if self.plan:
            self._check_reader()
        if self.quiet or self.json:
            return
        if self.plan:
            self._show(sentence(event))
        elif self.verbose:
            self._above_bar(sentence(event))

    def _check_reader(self) -> None:
        """Where the data is all there is to do: Gone or MirrorError when JSON Lines cannot be written."""
        if self.json and self.json.failed:
            with translated():
                raise self.json.failed

    def _show(self, text: str | bytes) -> None:
        """Data on stdout, which may be the terminal that the bar is on."""
        with self._bar_away():
            if isinstance(text, bytes):
                self.out.data(text)
            else:
                self.out.line(text)
            if self.bar:
                self.out.close()

    def _above_bar(self, text: str) -> None:
        with self._bar_away():
            complain(text)

    def _bar_away(self) -> contextlib.AbstractContextManager[None]:
        return self.bar.away() if self.bar else contextlib.nullcontext()

    # -- when it is over ---------------------------------------------------------------------------------------------

    def finish(self, report: Any, code: int) -> int:
        """Say the report of a verb; gives the exit code."""
        self._close_bar()
        problems = getattr(report, "problems", [])
        kinds = self._kinds if getattr(report, "problem_count", 0) > len(problems) else None
        told = [*report_lines(report, self.verbose), *problem_lines(problems, kinds)]
        if self.changes and (why := self.changes.finish()):
            told.append(f"mirror: the list of changes is not written: {why}")
            code = code or 1
        return self._finish(members(report), code, told)

    def finish_data(self, values: dict[str, Any], code: int = 0) -> int:
        """The same for a command that only gives data: no report but the problems that were heard. values: for the summary."""
        self._close_bar()
        code = worst_exit({code, *self.codes} - {0})
        return self._finish(values, code, list(problem_lines(self._problems, self._kinds)))

    def _finish(self, values: dict[str, Any], code: int, told: list[str]) -> int:
        if not self.quiet or code:
            self._tell([*self._held, *told])
        if self.json:
            self.json.data("summary", self._summary(code) | values)
        return self._close(code, told)

    def fail(self, error: MirrorError) -> int:
        """Say the error; gives its exit code."""
        self._close_bar()
        if config.wants_traceback():
            import traceback

            for line in traceback.format_exc().splitlines():
                complain(line)
        early = [] if self._started else [sentence(notice) for notice in self._early]
        told = [*early, *problem_lines(self._problems, self._kinds), f"mirror: {error}"]
        self._tell([*self._held, *told])
        if self.json:
            self.json.data("summary", self._summary(error.exit_code) | {"error": error_values(error)})
        return self._close(error.exit_code, told)

    def leave(self) -> None:
        """However it ended: leave no draft behind."""
        if self.changes:
            self.changes.drop()

    def _summary(self, code: int) -> dict[str, Any]:
        return {"job": self.job.id, "verb": self.verb, "exit_code": code}

    def _tell(self, lines: Iterable[str]) -> None:
        for line in lines:
            complain(line)

    def _close_bar(self) -> None:
        if self.bar:
            self.bar.close()

    def _close(self, code: int, told: list[str]) -> int:
        if self.log:
            for line in told:
                self.log.line(line)
            self.log.line(f"exit {code}")
            self.log.close()
            if self.log.failed:
                complain(f"mirror: the log file is not complete: {self.log.failed}")
        try:
            self._check_reader()
            self.out.close()
        except Gone:
            return code
        except MirrorError as error:
            if not code:
                complain(f"mirror: {error}")
            return code or error.exit_code
        return code


def error_values(error: MirrorError) -> dict[str, str]:
    """An error as the summary has it."""
    return {"kind": error.kind, "what": error.what, "where": error.where, "why": error.why, "hint": error.hint}


def _log_file(name: str) -> LogFile | None:
    if not name:
        return None
    try:
        return LogFile(Path(name))
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise UsageError("cannot write the log file", where=name, why=why, hint="name another with --log-file") from None
