"""Clients of object services, and what their failures mean: the part that stores and sites share.

Owns how S3, Google and Azure are reached (`access`, `build`) and the words for what goes wrong there (`answers`). Leaves requests,
and how often they are asked again, to `mirror.store.s3` and `mirror.site.objects`.
"""

from __future__ import annotations

from typing import Protocol


class ClientSpec(Protocol):
    """What it takes to reach a bucket; a StoreSpec and a SiteSpec both say it.

    url: `s3://bucket/prefix`. endpoint_url, region, profile: as boto3 means them. static_credentials: the environment holds keys,
    and no file has anything to add to them.
    """

    @property
    def url(self) -> str: ...

    @property
    def endpoint_url(self) -> str: ...

    @property
    def region(self) -> str: ...

    @property
    def profile(self) -> str: ...

    @property
    def static_credentials(self) -> bool: ...
