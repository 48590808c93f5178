"""Canonical JSON and its digest: one document, one string of bytes, one name."""

from __future__ import annotations

import hashlib
import json


def canonical_json(document: object) -> bytes:
    """Serialise with sorted keys, no spaces, and no NaN, so that equal documents are equal bytes."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(document: object) -> str:
    """Hex sha256 of the canonical JSON of ``document``."""
    return hashlib.sha256(canonical_json(document)).hexdigest()


def sample_key(source_sha256: str, part: str) -> str:
    """The name of a sample: 32 hex digits of the content it came from and the part of it that it is.

    A key follows the content and not the path, so a moved bucket keeps its keys and a file stored twice shows up.
    """
    return hashlib.sha256(f"{source_sha256}:{part}".encode()).hexdigest()[:32]
