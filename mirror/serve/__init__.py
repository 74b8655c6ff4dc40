"""`mirror serve`: a process that holds targets and lets others use them over HTTP. docs/http.md is its protocol.

    receiver    options, report, the run itself
    listen      sockets, TLS, time-outs of connections, the end of the process
    protocol    requests to answers: who asks, what of, within which limits
    hosted      the targets below a root, each with its store and what is accepted into it
    examine     objects on arrival: packs, fragments, manifest objects
    records     records on arrival: the chain, and whether all that they name is there

Starlette and uvicorn are in the extra `serve`, and are loaded by `protocol` and `listen` alone.
"""
