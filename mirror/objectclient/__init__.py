"""Clients of object services, and what their failures mean: the part that stores and sites share.

Owns how S3, Google and Azure are reached (`access`, `build`) and the words for what goes wrong there (`answers`). Leaves requests,
and how often they are asked again, to `mirror.store.s3` and `mirror.site.objects`.
"""

from __future__ import annotations

from typing import Protocol


class ClientSpec(Protocol):
    """What it takes to reach a bucket; a StoreSpec and a SiteSpec both say it."""

    @property
    def url(self) -> str:
        """`s3://bucket/prefix`."""
        ...

    @property
    def endpoint_url(self) -> str:
        """As boto3 means it."""
        ...

    @property
    def region(self) -> str:
        """As boto3 means it."""
        ...

    @property
    def profile(self) -> str:
        """As boto3 means it."""
        ...

    @property
    def static_credentials(self) -> bool:
        """Whether the environment holds keys, and no file has anything to add to them."""
        ...
