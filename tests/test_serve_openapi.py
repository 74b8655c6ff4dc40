"""docs/http.openapi.json and a live `mirror serve` say the same: whatever may be asked by it is answered as it says, and nothing
that anybody asks is an error of the server.

Schemathesis makes the requests, right ones and wrong ones; they are signed here, as OpenAPI has no words for that.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings
from serving import Served

import mirror
from mirror.access import read_client_key
from mirror.signing import digest_of_body, sign_request

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "docs/http.openapi.json"
SCHEMA = schemathesis.openapi.from_path(str(DOCUMENT))
EVERY = {"deadline": None, "database": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("server")
    with Served(folder) as server:
        server.new_key("all", "read,append,publish,prune")
        server.init("www")
        (folder / "site").mkdir()
        (folder / "site/page.html").write_bytes(os.urandom(5000))
        server.init("tree", "tree")
        for name in ("www", "tree"):
            mirror.sync(folder / "site", f"{server.url}/{name}", key_file=folder / "all.key")
        yield server


def ask(case: Any, server: Served) -> requests.Response:
    """The answer to a case, in a target that there is or in one that is not, signed."""
    name = case.path_parameters.get("name", "")
    if len(name) % 4:
        of_trees = case.operation.path.endswith(("/-/live", "/-/publish"))
        case.path_parameters["name"] = "tree" if of_trees or len(name) % 4 == 2 else "www"
    request = requests.Request(**case.as_transport_kwargs(base_url=server.url)).prepare()
    headers = {name: str(value) for name, value in request.headers.items()}
    body = request.body.encode() if isinstance(request.body, str) else request.body or b""
    if body:
        headers |= {"Content-Digest": digest_of_body(body), "Content-Length": str(len(body))}
    signed = sign_request(read_client_key(str(server.folder / "all.key")), request.method or "", request.url or "", headers)
    request.headers.clear()
    request.headers.update(signed)
    with requests.Session() as session:
        session.trust_env = False
        return session.send(request, timeout=30, allow_redirects=False)


def judge(case: Any, server: Served) -> None:
    try:
        answer = ask(case, server)
    except (requests.RequestException, UnicodeError, ValueError):
        return  # the client's library cannot say that
    except Exception as error:
        if type(error).__name__ == "HTTPMessageSignaturesException":
            return  # nor sign it
        raise
    assert answer.status_code < 500
    told = json.loads(DOCUMENT.read_text())["paths"][case.operation.path]
    if case.method.lower() in told:
        assert str(answer.status_code) in told[case.method.lower()]["responses"], (answer.status_code, answer.text)
    if answer.status_code >= 400 and answer.status_code not in (412, 416) and case.method != "HEAD":
        assert {"status", "kind", "detail"} <= answer.json().keys()
        assert answer.json()["status"] == answer.status_code


@SCHEMA.parametrize()
@settings(max_examples=6, **EVERY)
def test_what_may_be_asked_is_answered(case: Any, server: Served) -> None:
    judge(case, server)


@pytest.mark.long
@SCHEMA.parametrize()
@settings(max_examples=200, **EVERY)
def test_whatever_is_asked_is_answered(case: Any, server: Served) -> None:
    judge(case, server)


def test_the_target_is_what_it_was(server: Served) -> None:
    assert mirror.verify(server.root / "www").exit_code == 0
    assert mirror.verify(server.root / "tree", against=server.folder / "site").exit_code == 0
    assert "Traceback" not in server.log
    assert "this should not have happened" not in server.log
    assert "note: POST" not in server.log  # a failure is told like that


def test_every_refusal_is_in_the_page() -> None:
    """docs/http.md names each kind that the code has."""
    import re

    page = (ROOT / "docs/http.md").read_text()
    source = "".join(path.read_text() for path in (ROOT / "mirror/signing.py", *(ROOT / "mirror/serve").glob("*.py")))
    kinds = (
        set(re.findall(r'Refusal\(\d+, "([a-z-]+)"', source))
        | set(re.findall(r'Unsigned\("([a-z-]+)"', source))
        | {"rejected", "behind"}
    )
    assert len(kinds) > 12
    assert [kind for kind in sorted(kinds) if f"`{kind}`" not in page] == []
