"""`mirror serve`: a target made available over HTTP.

A mirror as a web site for people, which only reads (`site.py` is the verb):

    site.py       what is served, and since when: the verb, its options, its report
    pages.py      requests in, answers out (Starlette)
    answers.py    what HTTP says an answer is: conditions, ranges, headers. Pure
    paths.py      from a URL to an entry of the snapshot
    contents.py   the bytes of an entry, each proved before it is sent
    places.py     where chunks are, as far as the index has been read
    recent.py     what was asked for lately, within a number of bytes
    listening.py  a socket, and uvicorn on it

Starlette and uvicorn are in the extra `serve`; only pages.py and listening.py load them.
"""
