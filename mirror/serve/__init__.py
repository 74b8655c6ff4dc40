"""`mirror serve`: targets made available over HTTP.

A mirror as a web site for people, which only reads (`site.py` is the verb):

    site.py       what is served, and since when: the verb, its options, its report
    pages.py      requests in, answers out (Starlette)
    answers.py    what HTTP says an answer is: conditions, ranges, headers. Pure
    paths.py      from a URL to an entry of the snapshot
    contents.py   the bytes of an entry, each proved before it is sent
    places.py     where chunks are, as far as the index has been read
    recent.py     what was asked for lately, within a number of bytes

Targets for clients with keys (`receiver.py` is the verb, docs/http.md the protocol):

    receiver.py   options, report, the run itself
    protocol.py   requests to answers: who asks, what of, within which limits (Starlette)
    complaints.py what is said of requests that were refused, and how often
    holding.py    the targets below a root, each with its store and what may come into it
    examine.py    objects on arrival: packs, fragments, manifest objects
    records.py    records on arrival: the chain, and whether all that they name is there

Both:

    listening.py  a socket, with TLS or without, uvicorn on it, time-outs of connections, the end of the run

Starlette and uvicorn are in the extra `serve`; only pages.py, protocol.py and listening.py load them.
"""

from __future__ import annotations

from mirror.errors import UsageError


def not_installed(error: ImportError) -> UsageError:
    """The error for a library of the extra that is missing."""
    name = (error.name or str(error)).partition(".")[0]
    hint = "install the extra: pip install 'mirror-snapshot[serve]'"
    return UsageError("cannot serve", why=f"{name} is not installed", hint=hint)
