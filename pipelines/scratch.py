"""Temporary data of a dataset that is being written: documents with their own checksum, so that changed ones are not trusted."""

from __future__ import annotations

import hashlib
import json
import re

from crossdim.storage_schema.digest import canonical_json

#: Folder of temporary data inside the dataset; removed once it is published.
WORK = "_work"
#: What the dataset is made from (see ``crossdim.pipelines.jobs.inputs``).
INPUTS = f"{WORK}/inputs.json"
#: How many tasks there are (see ``crossdim.pipelines.plan_record``).
PLAN = f"{WORK}/plan.json"
#: Which processes are at work (see ``crossdim.pipelines.driver_record``).
DRIVERS = f"{WORK}/drivers"
#: The two records, the folder of processes, or that of a plan's markers.
_OURS = re.compile(rf"(?:{re.escape(INPUTS)}|{re.escape(PLAN)})\Z|(?:{DRIVERS}|{WORK}/[0-9a-f]{{16}})(?=/)")


def scratch_of(path: str) -> str | None:
    """The object or folder of temporary data that a path is in; None if it is not ours."""
    found = _OURS.match(path)
    return found[0] if found else None


def to_checked_bytes(document: object) -> bytes:
    """Serialise a document with its sha256: equal documents are equal bytes."""
    text = canonical_json(document)
    return text + b"\n" + hashlib.sha256(text).hexdigest().encode() + b"\n"


def parse_checked(data: bytes) -> object:
    """Parse a document that :func:`to_checked_bytes` wrote.

    Raises:
        ValueError: if a byte of it is missing or differs.
    """
    text, newline, rest = data.partition(b"\n")
    if not newline or rest != hashlib.sha256(text).hexdigest().encode() + b"\n":
        raise ValueError("does not match the checksum that it carries")
    return json.loads(text)
