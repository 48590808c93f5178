"""The request: a digest of what a preparation is asked for. The dataset stores it, and it can be computed without a scan."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

from crossdim.foundation.settings import to_document
from crossdim.pipelines.jobs.plan import PLAN_VERSION
from crossdim.pipelines.sources.labels import LabelTable
from crossdim.pipelines.sources.listing import SourceFile
from crossdim.storage_schema.digest import canonical_json
from crossdim.storage_schema.pseudonym import PseudonymKey


def table_document(table: LabelTable | None) -> dict[str, Any] | None:
    """What a table of labels says, wherever it lies."""
    if table is None:
        return None
    return {
        "columns": [table.label_column, table.patient_column],
        "missing": None if table.missing is None else sorted(table.missing),
        "rows": to_document(table.parsed),
    }


class RequestDigests:
    """The digests of requests for the same files: of ``{"files": ..., "settings": ..., "version": ...}`` as canonical JSON.

    Args:
        files: of all sources; names and sizes count, so that a copy of the sources asks for the same.
        key: with which the dataset's names are hashed: nobody else may test a guess of a name against the digest.
    """

    def __init__(self, files: Iterable[SourceFile], key: PseudonymKey | None) -> None:
        named = sorted([file.uri, file.size, file.problem] for file in files)
        start = canonical_json({"files": named}).removesuffix(b"}") + b',"settings":'
        self._start = key.begin_document(start) if key else hashlib.sha256(start)

    def digest_of(self, settings: Mapping[str, Any]) -> str:
        """The digest of a request.

        Args:
            settings: whatever decides the bytes besides the files, as JSON values.
        """
        whole = self._start.copy()
        whole.update(canonical_json(settings) + b',"version":%d}' % PLAN_VERSION)
        return whole.hexdigest()
