"""obstore clients for a bucket URL: one way to make them, for stores and for sites."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING

from obstore.exceptions import BaseError

from mirror.errors import UsageError
from mirror.objectclient import ClientSpec
from mirror.objectclient.access import access
from mirror.objectclient.answers import clean

if TYPE_CHECKING:
    from obstore.store import ClientConfig, ObjectStore, RetryConfig, S3Config

CONNECT_SECONDS = 10
RETRY_SECONDS = 10


def split_url(url: str) -> tuple[str, str, str]:
    """Scheme, bucket and prefix of a URL; the prefix without slashes around it."""
    scheme, _, rest = url.partition("://")
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.strip("/")
    if not bucket:
        raise UsageError("cannot use", where=url, why="it names no bucket", hint=f"write {scheme}://BUCKET/PREFIX")
    if prefix and any(part in ("", ".", "..") for part in prefix.split("/")):
        raise UsageError("cannot use", where=url, why="its prefix has an empty component, or `.` or `..`", hint="give it without")
    return scheme, bucket, prefix


def client_builder(spec: ClientSpec, scheme: str, bucket: str, prefix: str) -> Callable[[ClientConfig], ObjectStore]:
    """What makes obstore clients for a spec: their time-outs differ."""
    from obstore.store import AzureStore, GCSStore, S3Store

    retries: RetryConfig = {
        "max_retries": 30,
        "retry_timeout": timedelta(seconds=RETRY_SECONDS),
        "backoff": {"init_backoff": timedelta(seconds=0.1), "max_backoff": timedelta(seconds=2), "base": 2},
    }
    reach = access(spec) if scheme == "s3" else None

    def build(times: ClientConfig) -> ObjectStore:
        client: ClientConfig = {"connect_timeout": timedelta(seconds=CONNECT_SECONDS), **times}
        try:
            if scheme == "gs":
                return GCSStore(bucket, prefix=prefix or None, client_options=client, retry_config=retries)
            if scheme == "az":
                return AzureStore(bucket, prefix=prefix or None, client_options=client, retry_config=retries)
            assert reach
            plain = reach.endpoint_url.startswith("http://")
            config: S3Config = {"region": reach.region, "unsigned_payload": not plain}
            if reach.endpoint_url:
                # The second name too: AWS_ENDPOINT_URL_S3 would win over the first (measured).
                config |= {"endpoint": reach.endpoint_url, "aws_endpoint_url_s3": reach.endpoint_url}
            client["allow_http"] = plain
            return S3Store(
                bucket,
                prefix=prefix or None,
                config=config,
                client_options=client,
                retry_config=retries,
                credential_provider=reach.provider,
            )
        except (BaseError, OSError, ValueError) as error:
            why = clean(str(error).split("\n", 1)[0])
            raise UsageError("cannot open", where=spec.url, why=why, hint="check the URL and the client's settings") from error

    return build
