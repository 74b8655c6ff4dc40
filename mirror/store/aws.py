"""What the environment has to say of an S3 store. Pure: config.py hands it the environment.

`with_environment` notes in the StoreSpec when the environment's keys are all there is to know (see `mirror.objectclient.access`).
Never a secret in a StoreSpec.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from mirror.store import StoreSpec


def with_environment(spec: StoreSpec, environment: Mapping[str, str]) -> StoreSpec:
    """The spec with endpoint, region and profile as the environment gives them where it has none of its own, and with
    `static_credentials` set where no file can have anything to add."""
    if not spec.url.startswith("s3://"):
        return spec
    endpoint = spec.endpoint_url
    if environment.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() != "true":
        endpoint = endpoint or environment.get("AWS_ENDPOINT_URL_S3", "") or environment.get("AWS_ENDPOINT_URL", "")
    region = spec.region or environment.get("AWS_REGION", "") or environment.get("AWS_DEFAULT_REGION", "")
    keys = bool(environment.get("AWS_ACCESS_KEY_ID") and environment.get("AWS_SECRET_ACCESS_KEY")) and not spec.profile
    file = Path(environment.get("AWS_CONFIG_FILE") or Path(environment.get("HOME", "/"), ".aws", "config"))
    return dataclasses.replace(
        spec, endpoint_url=endpoint, region=region, static_credentials=keys and (bool(endpoint and region) or not file.exists())
    )
