"""The secret key that patients, UIDs and source names are hashed with: given as a file, or made once and kept with the data."""

from __future__ import annotations

import os
import secrets
import stat
import sys

from crossdim.foundation.bucket import Bucket
from crossdim.pipelines.sources.listing import SALT_NAME, split_folder
from crossdim.storage_schema.errors import StorageError, UsageError
from crossdim.storage_schema.names import printable
from crossdim.storage_schema.pseudonym import MIN_KEY_BYTES, PseudonymKey

#: Of a key that is made here.
NEW_KEY_BYTES = 32
#: A larger file is not a key and was named by mistake.
MAX_KEY_BYTES = 64 * 1024


def locate_salt(source: Bucket) -> Bucket:
    """Where the key is that is kept with the raw data of a source (a folder or a prefix)."""
    return source.at(SALT_NAME)


def read_key(salt_file: Bucket) -> PseudonymKey:
    """Read the key in a file.

    Raises:
        StorageError: if there is no such file.
        UsageError: for a file that is too short or too long to be a key.
    """
    if not salt_file.exists():
        raise StorageError(f"{salt_file.where('')} does not exist; make the secret key with: head -c 32 /dev/urandom > FILE")
    found = salt_file.list_objects()
    if [entry.path for entry in found] != [""]:
        raise UsageError(
            f"{salt_file.where('')} is a folder, or no file; --salt-file takes a file of at least {MIN_KEY_BYTES} random bytes"
        )
    if found[0].size > MAX_KEY_BYTES:
        raise UsageError(f"{salt_file.where('')} has {found[0].size:,} bytes; a key has at most {MAX_KEY_BYTES:,}")
    folder, name = split_folder(salt_file)
    try:
        key = PseudonymKey(folder.read(name))
    except UsageError as error:
        raise UsageError(f"{salt_file.where('')}: {error}") from error
    return key


def tell_if_readable_by_others(salt_file: Bucket) -> None:
    """Warn on standard error if other users of this machine can read a key."""
    if salt_file.is_local and stat.S_IMODE(os.stat(salt_file.root).st_mode) & 0o077:
        _tell(f"{salt_file.where('')} can be read by other users of this machine; chmod 600 it")


def _tell(sentence: str) -> None:
    sys.stderr.write(f"{printable(sentence)}\n")


def make_key() -> PseudonymKey:
    """Make a random key, without storing it."""
    return PseudonymKey(secrets.token_bytes(NEW_KEY_BYTES))


def load_or_create_key(source: Bucket, new: PseudonymKey | None = None) -> PseudonymKey:
    """Load the key kept in a source; the first preparation makes it.

    Args:
        source: a folder or a prefix. Of several preparations at a time one makes the key, and all use it.
        new: is stored if there is none; one is made if it is not given.

    Returns:
        The stored key, which may be another preparation's.

    Raises:
        StorageError: if nothing can be written there.
        UsageError: if the key that is there is too short.
    """
    place = locate_salt(source)
    if source.exists(SALT_NAME):
        return read_key(place)
    try:
        created = source.create(SALT_NAME, (new or make_key()).secret, private=True)
    except StorageError as error:
        raise StorageError(
            f"patients, UIDs and names are hashed with a secret key that is kept in the first source, but it cannot be written: "
            f"{error}. Name a place for it with --salt-file FILE (make one with: head -c 32 /dev/urandom > FILE)"
        ) from error
    if created:
        _tell(f"{place.where('')} is the new secret key of this data's hashes; keep it, and keep it to yourself")
    return read_key(place)
