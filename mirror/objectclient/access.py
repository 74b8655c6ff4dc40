"""Credentials, region and endpoint for S3: boto3's chain, without boto3's 0.4 s where the environment says it all.

Where `static_credentials` is set, obstore reads the environment's keys itself. In every other case botocore is asked, which knows
profiles, SSO, instance roles and assumed roles, and refreshes what expires.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from mirror.errors import AuthError, UsageError
from mirror.objectclient import ClientSpec

if TYPE_CHECKING:
    from obstore.store import S3Credential

DEFAULT_REGION = "us-east-1"
# botocore renews at the latest ten minutes before the end, so what it hands out is good for that long.
_GOOD_FOR = timedelta(minutes=10)


class Access(NamedTuple):
    """How to reach S3. provider: gives credentials to obstore, None when obstore finds them in the environment."""

    endpoint_url: str
    region: str
    provider: Callable[[], S3Credential] | None


def access(spec: ClientSpec, *, ask_botocore: bool = False) -> Access:
    """How to reach what the spec names. AuthError when there are no credentials, UsageError for an unknown profile. ask_botocore:
    resolve everything here, also what obstore would find by itself."""
    if spec.static_credentials and not ask_botocore:
        return Access(spec.endpoint_url, spec.region or DEFAULT_REGION, None)
    import botocore.exceptions
    import botocore.session

    try:
        session = botocore.session.Session(profile=spec.profile or None)
        region = spec.region or session.get_config_variable("region") or DEFAULT_REGION
        endpoint = spec.endpoint_url or _configured_endpoint(session)
        credentials = session.get_credentials()
    except botocore.exceptions.ProfileNotFound:
        raise UsageError("cannot open", where=spec.url, why=f"there is no profile {spec.profile!r}" if spec.profile else
                         "the profile that AWS_PROFILE names does not exist", hint="look at ~/.aws/config") from None  # fmt: skip
    except (botocore.exceptions.BotoCoreError, ValueError) as error:
        raise AuthError("cannot open", where=spec.url, why=_sentence(error), hint="look at the profile in ~/.aws/config") from error
    if credentials is None:
        raise AuthError("cannot open", where=spec.url, why="no credentials are to be found",
                        hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or give --profile")  # fmt: skip
    return Access(endpoint, region, _provider(credentials, spec.url))


def _configured_endpoint(session: Any) -> str:
    """AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL, and endpoint_url of the profile (also of its `services` section)."""
    from botocore.configprovider import ConfiguredEndpointProvider

    if session.get_config_variable("ignore_configured_endpoint_urls"):
        return ""
    found = ConfiguredEndpointProvider(full_config=session.full_config, scoped_config=session.get_scoped_config(), client_name="s3")
    return str(found.provide() or "")


def _provider(credentials: Any, url: str) -> Callable[[], S3Credential]:
    renewed = hasattr(credentials, "refresh_needed")

    def provide() -> S3Credential:
        frozen = credentials.get_frozen_credentials()
        return {
            "access_key_id": frozen.access_key,
            "secret_access_key": frozen.secret_key,
            "token": frozen.token,
            "expires_at": datetime.now(UTC) + _GOOD_FOR if renewed else None,
        }

    try:
        provide()  # an expired login shows here, in its own words, not as a failed request
    except Exception as error:  # botocore lets errors of many libraries through
        raise AuthError("cannot open", where=url, why=_sentence(error), hint="log in again") from error
    return provide


def control_client(spec: ClientSpec) -> Any:
    """A boto3 client for what obstore cannot do. Costs boto3's import."""
    import boto3
    from botocore.config import Config

    found = access(spec, ask_botocore=True)
    settings = Config(
        connect_timeout=10,
        read_timeout=30,
        retries={"total_max_attempts": 3, "mode": "standard"},
        # As obstore does: few servers but Amazon's answer to BUCKET.HOST.
        s3={"addressing_style": "path"} if found.endpoint_url else {},
    )
    session = boto3.session.Session(profile_name=spec.profile or None, region_name=found.region)
    return session.client("s3", endpoint_url=found.endpoint_url or None, config=settings)


def _sentence(error: BaseException) -> str:
    text = " ".join(str(error).split()).rstrip(".")[:300]
    return text[:1].lower() + text[1:] if text else type(error).__name__
