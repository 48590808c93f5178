"""Store options: how to reach a store."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from crossdim.foundation.location import S3_PROTOCOLS

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 30
#: Without patience an error comes within about 16 s: each of two attempts waits this long for an answer.
IMPATIENT_READ_TIMEOUT_S = 8
IMPATIENT_ATTEMPTS = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class StoreOptions:
    """How to reach a store. Options that are left empty are taken from the usual places (environment, profile, instance role).

    Attributes:
        endpoint_url: address of an S3-compatible store.
        access_key: of S3, together with ``secret_key``.
        session_token: of temporary credentials.
        region: region of the bucket.
        anonymous: do not sign requests.
        patience_s: for how many seconds a store that does not answer is asked again before that is an error. Local files are
        never
            retried.
    """

    endpoint_url: str | None = None
    access_key: str | None = None
    secret_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    region: str | None = None
    anonymous: bool = False
    patience_s: float = 0.0

    def filesystem_arguments(self, protocol: str) -> dict[str, Any]:
        """Keyword arguments for the fsspec filesystem of ``protocol``."""
        if protocol not in S3_PROTOCOLS:
            return {}
        return {
            "key": self.access_key,
            "secret": self.secret_key,
            "token": self.session_token,
            "anon": self.anonymous,
            "use_listings_cache": False,  # what another process wrote since must be seen
            "endpoint_url": self.endpoint_url,
            "client_kwargs": {"region_name": self.region} if self.region else {},
            "config_kwargs": {
                "connect_timeout": CONNECT_TIMEOUT_S,
                "read_timeout": READ_TIMEOUT_S if self.patience_s else IMPATIENT_READ_TIMEOUT_S,
                # With patience we ask again ourselves: a client that retries by itself may be silent for minutes.
                "retries": {"total_max_attempts": 1 if self.patience_s else IMPATIENT_ATTEMPTS, "mode": "standard"},
            },
        }
