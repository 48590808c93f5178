"""Canonical JSON and its digest: equal documents have equal bytes and equal digests."""

from __future__ import annotations

import hashlib
import json


def canonical_json(document: object) -> bytes:
    """Serialise with sorted keys, no spaces and no NaN, so that equal documents are equal bytes."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(document: object) -> str:
    """Hex sha256 of the canonical JSON of ``document``."""
    return hashlib.sha256(canonical_json(document)).hexdigest()


def sample_key(source_sha256: str, part: str) -> str:
    """The key of a sample, computed from its source and its part.

    A key follows the content and not the path, so a moved bucket keeps its keys and a file stored twice shows up.

    Args:
        source_sha256: of the source's content, 64 hex digits.
        part: which piece of the source it is, such as ``whole``, ``frame=3`` or ``box=17``.

    Returns:
        32 hex digits.
    """
    return hashlib.sha256(f"{source_sha256}:{part}".encode()).hexdigest()[:32]
