"""The command line: parse, open, call one verb, render, exit code. The only place that prints or exits.

    words.py      verbs and flags
    parsing.py    reads a command line by them
    manual.py     help
    named.py      mirrors that mirror.toml names
    commands.py   one function for each verb
    serving.py    the verb that serves
    session.py    who is told what, on which stream
    render.py     reports as lines
    changes.py    what changed as a file, for the next tool
    streams.py    stdout, stderr, signals

No traceback reaches a user unless MIRROR_DEBUG=1 asks for it.
"""

from __future__ import annotations

import errno
import gc
import shlex
import sys
from collections.abc import Sequence

from mirror import __version__, config
from mirror.cli import named, parsing, words
from mirror.cli.streams import Gone, Interrupts, Out, complain, drop_output, open_closed_streams
from mirror.errors import InterruptedRunError, MirrorError, TemporaryError

_HELP = ("-h", "--help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `mirror ARGUMENTS` (those of this process by default); gives the exit code."""
    # A scan makes a million small tuples and no cycles: at the default of 700 the collector takes a tenth of an unchanged run.
    gc.set_threshold(50_000, 50, 100)
    open_closed_streams()
    out = Out()
    try:
        with Interrupts() as interrupts:
            return _run(sys.argv[1:] if arguments is None else list(arguments), out, interrupts)
    except Gone:
        return 0
    except KeyboardInterrupt:  # before a run began, or when nothing of it was left
        return 130
    finally:
        if not out.settle():
            drop_output()


def _run(arguments: list[str], out: Out, interrupts: Interrupts) -> int:
    try:
        text = _told_at_once(arguments)
        out.text(text)
        out.close()
    except MirrorError as error:
        complain(f"mirror: {error}")
        return error.exit_code
    return 0 if text else _command(arguments[0], arguments[1:], out, interrupts)


def _told_at_once(arguments: list[str]) -> str:
    """The version or the help that was asked for, if any."""
    from mirror.cli import manual

    if arguments == ["--version"]:
        return f"mirror {__version__}"
    if not arguments or arguments[0] in _HELP or arguments == ["help"]:
        return manual.help_of_all()
    if arguments[0] == "help":
        return manual.help_of(parsing.verb_of(arguments[1]))
    asked = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return manual.help_of(words.VERBS[arguments[0]]) if arguments[0] in words.VERBS and set(asked) & set(_HELP) else ""


def _command(name: str, rest: list[str], out: Out, interrupts: Interrupts) -> int:
    from mirror.cli.commands import COMMANDS
    from mirror.cli.session import Session

    session = Session(name, shlex.join(["mirror", name, *_open_ended(rest)]), out)
    try:
        verb = parsing.verb_of(name)
        names = {flag.dest for flag in verb.flags}
        if "json" in names and config.wants_json(rest):
            session.speak_json()  # also of errors in the other arguments
        said, given = parsing.parse(verb, rest)
        said, asked = named.resolve(verb, said, given, config.environment(names), session.notice)
        parsing.check_count(verb, said)
        session.begin(asked)
        session.job.listeners = [*session.job.listeners, interrupts.insist]
        return COMMANDS[verb.name](session, said)
    except KeyboardInterrupt:
        return session.fail(InterruptedRunError("interrupted", hint="run the same command again to go on"))
    except Gone:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, it is one sentence and an exit code
        return session.fail(_sentence(error))
    finally:
        session.leave()


def _open_ended(words: list[str]) -> list[str]:
    """The same arguments in such a form that more options may follow: what stood behind `--` stays no option."""
    if "--" not in words:
        return words
    at = words.index("--")
    return [*words[:at], *(f"./{word}" if word.startswith("-") else word for word in words[at + 1 :])]


def _sentence(error: Exception) -> MirrorError:
    """An exception as an error for people."""
    if isinstance(error, MirrorError):
        return error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return TemporaryError("no room is left", where=str(error.filename or ""), why=error.strerror or str(error),
                              hint="free some, also in the folder for temporary files (TMPDIR)", kind="disk-full")  # fmt: skip
    if isinstance(error, OSError) and error.filename is not None:
        return MirrorError("cannot use", where=str(error.filename), why=error.strerror or str(error))
    why = " ".join(f"{type(error).__name__}: {error}".split())
    return MirrorError("this should not have happened", why=why, hint="set MIRROR_DEBUG=1 to see where, and please report it")
