"""The location and the store options that a call in Python names."""

from __future__ import annotations

import argparse
import re
from os import PathLike, fspath
from typing import Any

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.storage_arguments import open_bucket
from crossdim.storage_schema.errors import UsageError, describe_unknown_name

#: What ``**store_options`` may hold: the storage options of the command line, with underscores.
STORE_OPTIONS: dict[str, Any] = {
    "endpoint_url": None,
    "credentials_file": None,
    "access_key": None,
    "secret_key": None,
    "region": None,
    "anonymous": False,
}
_OPTION = re.compile(r"--([a-z]+(?:-[a-z]+)*)")


def open_bucket_at(url: str | PathLike[str], options: dict[str, Any]) -> Bucket:
    """Open the folder or bucket at ``url`` and ask its store once.

    Args:
        url: a folder or any fsspec URL.
        options: some of ``STORE_OPTIONS``.

    Returns:
        The bucket, with the region that its store names.

    Raises:
        UsageError: for an option that does not exist, or options that contradict each other.
        StorageError: if the store does not answer, or refuses.
    """
    for name in options:
        if name not in STORE_OPTIONS:
            raise UsageError(describe_unknown_name("store option", name, STORE_OPTIONS))
    try:
        return open_bucket(fspath(url), argparse.Namespace(**(STORE_OPTIONS | options)))
    except UsageError as error:  # worded for the command line
        raise UsageError(_OPTION.sub(lambda found: found[1].replace("-", "_"), str(error))) from None
