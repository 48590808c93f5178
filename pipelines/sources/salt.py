"""The secret key that patients, UIDs and source names are hashed with: given as a file, or made once and kept beside raw data."""

from __future__ import annotations

import logging
import os
import secrets
import stat

from foundation.bucket import Bucket
from pipelines.sources.listing import SALT_NAME, as_folder
from storage_schema.errors import StorageError, UsageError
from storage_schema.pseudonym import MIN_KEY_BYTES, PseudonymKey

logger = logging.getLogger(__name__)

#: Of a key that is made here.
NEW_KEY_BYTES = 32
#: A larger file is no key but something named by mistake.
MAX_KEY_BYTES = 64 * 1024


def salt_beside(source: Bucket) -> Bucket:
    """Where the key lies that is kept beside the raw data of a source (a folder or a prefix)."""
    return source.at(SALT_NAME)


def read_key(salt_file: Bucket) -> PseudonymKey:
    """The key in a file.

    Raises:
        UsageError: if there is none, or a file that is too short or too long to be a key.
    """
    if not salt_file.exists():
        raise UsageError(f"{salt_file.where('')} does not exist; make the secret key with: head -c 32 /dev/urandom > FILE")
    found = salt_file.listing()
    if [entry.path for entry in found] != [""]:
        raise UsageError(f"{salt_file.where('')} is a folder; --salt-file takes a file of at least {MIN_KEY_BYTES} random bytes")
    if found[0].size > MAX_KEY_BYTES:
        raise UsageError(f"{salt_file.where('')} has {found[0].size:,} bytes; a key has at most {MAX_KEY_BYTES:,}")
    folder, name = as_folder(salt_file)
    try:
        key = PseudonymKey(folder.read(name))
    except UsageError as error:
        raise UsageError(f"{salt_file.where('')}: {error}") from error
    _warn_if_readable_by_others(salt_file)
    return key


def _warn_if_readable_by_others(salt_file: Bucket) -> None:
    if salt_file.is_local and stat.S_IMODE(os.stat(salt_file.root).st_mode) & 0o077:
        logger.warning("%s can be read by other users of this machine; chmod 600 it", salt_file.where(""))


def load_or_create_key(source: Bucket) -> PseudonymKey:
    """The key kept beside the raw data of a source; the first preparation makes it.

    Args:
        source: a folder or a prefix. Of several preparations at a time one makes the key, and all use it.

    Raises:
        StorageError: if nothing can be written there.
        UsageError: if what lies there is too short.
    """
    place = salt_beside(source)
    if source.exists(SALT_NAME):
        return read_key(place)
    try:
        created = source.create(SALT_NAME, secrets.token_bytes(NEW_KEY_BYTES), private=True)
    except StorageError as error:
        raise StorageError(
            f"patients, UIDs and names are hashed with a secret key that is kept beside the raw data, but it cannot be written: "
            f"{error}. Name a place for it with --salt-file FILE (make one with: head -c 32 /dev/urandom > FILE)"
        ) from error
    if created:
        logger.info("made the secret key of this data's hashes: %s; keep it, and keep it to yourself", place.where(""))
    return read_key(place)
