"""``config.json`` of a run's folder: the identity of the run, and where its data were when it was started.

The document contains its own digest. ``run_identity`` restores a damaged one from a checkpoint.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.digest import canonical_json, digest
from crossdim.storage_schema.errors import DocumentError, Problem
from crossdim.training.run_dir.layout import CONFIG


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """What a run is.

    Attributes:
        identity: see ``crossdim.training.launch.worker.build_identity``.
        sources: URLs of its datasets when it was started.
        sealed: whether the document had a digest, as older ones have not.
        provenance: how it was first started: recipe, settings that differ from it, command, versions; for people, and empty
            where nobody recorded it.
    """

    identity: dict[str, Any]
    sources: tuple[str, ...] = ()
    sealed: bool = True
    provenance: dict[str, Any] = field(default_factory=dict)

    def to_bytes(self) -> bytes:
        """The document as it is stored."""
        document = {"identity": self.identity, "sources": list(self.sources)}
        document |= {"provenance": self.provenance} if self.provenance else {}
        return canonical_json(document | {"digest": digest(document)}) + b"\n"


def parse_run_config(data: bytes, subject: str) -> RunConfig:
    """Parse the document of a run's configuration.

    Args:
        data: the bytes of ``config.json``.
        subject: where they came from, for messages.

    Returns:
        Identity and locations of the data.

    Raises:
        DocumentError: if it is damaged, or does not describe a run.
    """
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"{subject} is damaged", [Problem(loc="document", message=f"not JSON: {error}")]) from error
    if not isinstance(document, dict):
        found = f"found {type(document).__name__}; expected an object"
        raise DocumentError(f"{subject} is damaged", [Problem(loc="document", message=found)])
    identity, sources = document.get("identity"), document.get("sources", [])
    if not isinstance(identity, dict) or not isinstance(identity.get("config"), dict):
        keys = ", ".join(sorted(document)[:5]) or "nothing"
        raise DocumentError(
            f"{subject} does not describe a run of crossdim",
            [Problem(loc="identity", message=f"is missing or has no config; the document holds {keys}")],
        )
    if "digest" in document and document["digest"] != _digest(document):
        raise DocumentError(f"{subject} is damaged", [Problem(loc="digest", message="is not that of what stands beside it")])
    urls = tuple(map(str, sources)) if isinstance(sources, list) else ()
    provenance = document.get("provenance")
    return RunConfig(
        identity=identity,
        sources=urls,
        sealed="digest" in document,
        provenance=provenance if isinstance(provenance, dict) else {},
    )


def _digest(document: dict[str, Any]) -> str | None:
    """None if the document has none: Python reads NaN and lone surrogates."""
    try:
        return digest({name: value for name, value in document.items() if name != "digest"})
    except ValueError:
        return None


def read_run_config(run: Bucket) -> RunConfig:
    """Read the configuration in a run's folder.

    Raises:
        DocumentError: if it is not what was written, or none of ours.
        StorageError: if it cannot be read.
    """
    return parse_run_config(run.read_document(CONFIG), run.where(CONFIG))


def write_run_config(run: Bucket, identity: dict[str, Any], sources: list[str], provenance: dict[str, Any] | None = None) -> None:
    """Write the configuration of a run into its folder.

    Args:
        run: the folder.
        identity: of the run.
        sources: URLs of its datasets.
        provenance: how it was started.
    """
    run.put(CONFIG, RunConfig(identity=identity, sources=tuple(sources), provenance=provenance or {}).to_bytes())
