"""Storage arguments: the options of every verb that reads or writes storage, and the buckets built from them."""

from __future__ import annotations

import argparse
from dataclasses import replace

from crossdim.foundation.bucket import Bucket, StoreOptions
from crossdim.foundation.credentials import read_credentials
from crossdim.foundation.location import S3_PROTOCOLS, local_path, parse_location, split_weight
from crossdim.foundation.option_types import at_least_one
from crossdim.foundation.reachability import check_reachable
from crossdim.storage_schema.errors import StorageError, UsageError

_ABOUT = """\
Every path is a folder or any fsspec URL, such as s3://bucket/folder. Credentials are taken from the first of these that has
any: --access-key with --secret-key, --credentials-file, the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
AWS_SESSION_TOKEN), the profile (AWS_PROFILE, or default in ~/.aws), the role of this machine."""


def add_version_option(parser: argparse.ArgumentParser) -> None:
    """Add ``--version``, of a dataset."""
    about = "of a dataset to which files were added (prepare --append); default: the newest"
    parser.add_argument("--version", type=at_least_one, metavar="N", help=about)


def add_store_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that every verb with a storage argument takes."""
    group = parser.add_argument_group("storage", _ABOUT)
    group.add_argument("--endpoint-url", metavar="URL", help="address of an S3-compatible store")
    group.add_argument("--credentials-file", metavar="FILE", help="keys in the form of ~/.aws/credentials; workers need no file")
    group.add_argument("--access-key", metavar="KEY", help="access key, together with --secret-key")
    seen = "secret key; other users of this machine can see it while the command runs: prefer --credentials-file"
    group.add_argument("--secret-key", metavar="SECRET", help=seen)
    group.add_argument("--region", metavar="NAME", help="region of the bucket; usually the store states it")
    group.add_argument("--anonymous", action="store_true", help="do not sign requests")


def parse_store_options(arguments: argparse.Namespace) -> StoreOptions:
    """Build the store options from parsed arguments.

    Raises:
        UsageError: if they contradict each other.
    """
    access_key, secret_key, token = arguments.access_key, arguments.secret_key, None
    if (access_key is None) != (secret_key is None):
        given, missing = ("--access-key", "--secret-key") if secret_key is None else ("--secret-key", "--access-key")
        raise UsageError(f"{given} needs {missing} beside it; or put both into a file and name it with --credentials-file")
    if arguments.anonymous and (access_key or arguments.credentials_file):
        raise UsageError("--anonymous sends no credentials; leave it or the credentials out")
    if arguments.credentials_file:
        if access_key:
            raise UsageError("--access-key and --credentials-file both name credentials; choose one")
        found = read_credentials(local_path(arguments.credentials_file))
        access_key, secret_key, token = found.access_key, found.secret_key, found.session_token
    if arguments.endpoint_url:
        _check_endpoint(arguments.endpoint_url)
    return StoreOptions(
        endpoint_url=arguments.endpoint_url,
        access_key=access_key,
        secret_key=secret_key,
        session_token=token,
        region=arguments.region,
        anonymous=arguments.anonymous,
    )


def _check_endpoint(url: str) -> None:
    """The address itself is not shown: what makes it wrong may be a secret."""
    if not url.isprintable() or any(character in url for character in "@?#"):
        raise UsageError(
            "--endpoint-url takes the address of a store alone, such as https://HOST:PORT, without user, password, query or "
            "control characters; give credentials by --credentials-file, by AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "or by AWS_PROFILE"
        )
    if not url.startswith(("http://", "https://")):
        better = f"https://{url.removeprefix('//')}"
        raise UsageError(f"--endpoint-url begins with http:// or https://, such as {better}; found {url!r}")


def build_bucket(location: str, arguments: argparse.Namespace) -> Bucket:
    """Build a bucket without asking its store.

    Args:
        location: a folder, relative to this process's working directory, or a URL.
        arguments: with the storage options.

    Returns:
        The bucket.
    """
    return Bucket(parse_location(location), parse_store_options(arguments))


def open_bucket(location: str, arguments: argparse.Namespace) -> Bucket:
    """Build a bucket and ask its store once, so that a wrong endpoint, region, bucket or credential is reported within seconds.

    Args:
        location: a folder, relative to this process's working directory, or a URL.
        arguments: with the storage options.

    Returns:
        The bucket, with the region that its store names.

    Raises:
        StorageError: what is wrong, and the option that corrects it.
    """
    return reach(build_bucket(location, arguments))


def reach(found: Bucket) -> Bucket:
    """Ask the store of a bucket once; return the bucket with the region that its store names.

    Raises:
        StorageError: what is wrong, and the option that corrects it.
    """
    if found.protocol not in S3_PROTOCOLS:
        return found
    _ = found.filesystem  # says what to install if S3 is not spoken here
    return replace(found, options=check_reachable(found.root.split("/", 1)[0], found.options))


def open_weighted_bucket(text: str, arguments: argparse.Namespace) -> tuple[Bucket, float]:
    """Open the bucket that ``LOCATION`` or ``LOCATION:WEIGHT`` names; what exists decides between two readings.

    Args:
        text: the argument.
        arguments: with the storage options.

    Returns:
        The bucket, and its weight; 1.0 if none is given.

    Raises:
        UsageError: if both readings exist.
        StorageError: as :func:`open_bucket`.
    """
    options = parse_store_options(arguments)

    def exists(location: str) -> bool:
        try:
            return reach(Bucket(location, options)).exists()
        except StorageError as error:
            if isinstance(error.__cause__, PermissionError):  # how stores answer for what is missing, to those who may not list
                return False
            raise

    location, weight = split_weight(text, exists)
    return reach(Bucket(location, options)), weight
