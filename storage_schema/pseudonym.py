"""Pseudonyms: keyed hashes that stand for patients, UIDs and names of source files.

A hash without a key hides nothing that can be guessed: all 7-digit patient numbers are tried in seconds. With HMAC-SHA256
only the owner of the secret key can test a guess. The key is never part of a dataset.
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field

from crossdim.storage_schema.errors import UsageError

#: A shorter key could itself be guessed.
MIN_KEY_BYTES = 16
#: Hex digits of a patient, of a UID and of a key's id.
SHORT_DIGITS = 16
#: Hex digits of a name: as many as a sample's key, so that no two of any number of files meet.
NAME_DIGITS = 32
#: Begins every hashed name; no path that a store lists relative to its root is taken for one.
HASHED_PREFIX = "hashed:"


@dataclass(frozen=True, slots=True)
class PseudonymKey:
    """A secret key and the hashes made with it. Patients, UIDs and names are hashed apart: equal texts have unequal hashes.

    Args:
        secret: at least ``MIN_KEY_BYTES`` bytes; not shown by ``repr``.

    Raises:
        UsageError: for a key that is too short.
    """

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) < MIN_KEY_BYTES:
            raise UsageError(
                f"a secret key needs at least {MIN_KEY_BYTES} bytes; found {len(self.secret)}. "
                "Make one with: head -c 32 /dev/urandom > FILE"
            )

    def _hash(self, kind: str, text: str, digits: int) -> str:
        message = f"{kind}:{text}".encode("utf-8", "surrogateescape")
        return hmac.new(self.secret, message, hashlib.sha256).hexdigest()[:digits]

    @property
    def key_id(self) -> str:
        """Identifies the key without revealing it, so that two datasets can be seen to share one."""
        return hmac.new(self.secret, b"key id", hashlib.sha256).hexdigest()[:SHORT_DIGITS]

    def patient(self, identifier: str) -> str:
        """The pseudonym of a patient."""
        return self._hash("patient", identifier, SHORT_DIGITS)

    def uid(self, uid: str) -> str:
        """The pseudonym of a DICOM UID, or of several joined."""
        return self._hash("uid", uid, SHORT_DIGITS)

    def begin_document(self, start: bytes) -> hmac.HMAC:
        """The digest of a document, to be updated with the rest of it.

        Only the owner of the key can compare it with a guess of the document.

        Args:
            start: the first bytes of the document.
        """
        return hmac.new(self.secret, b"document:" + start, hashlib.sha256)

    def name(self, path: str, ending: str = "") -> str:
        """The pseudonym of a source file or series.

        Args:
            path: of the file or series, relative to the source.
            ending: suffix that states the format, such as ``.dcm``; it is kept as it is.

        Returns:
            ``hashed:``, 32 hex digits and the ending.
        """
        return f"{HASHED_PREFIX}{self._hash('name', path, NAME_DIGITS)}{ending}"
