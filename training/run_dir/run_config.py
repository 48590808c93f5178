"""The configuration of a run as it stands in its folder: what the run is, and where its data lay when it was started.

``config.json`` carries its own digest. One that is damaged is no end of a run: every checkpoint repeats the identity, and is
checked by its hash.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.digest import canonical_json, digest
from crossdim.storage_schema.errors import DocumentError, Problem, RunError, StorageError
from crossdim.training.run_dir import checkpoint

CONFIG = "config.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class RunConfig:
    """What a run is.

    Attributes:
        identity: see ``crossdim.training.launch.worker.identity``.
        sources: URLs of its datasets when it was started.
        sealed: whether the document had a digest, as older ones have not.
    """

    identity: dict[str, Any]
    sources: tuple[str, ...] = ()
    sealed: bool = True

    def to_bytes(self) -> bytes:
        """The document as it is stored."""
        document = {"identity": self.identity, "sources": list(self.sources)}
        return canonical_json(document | {"digest": digest(document)}) + b"\n"


@dataclass(frozen=True, kw_only=True, slots=True)
class Recorded:
    """What a run was started as.

    Attributes:
        identity: the same for all its starts.
        damage: where ``config.json`` is not what was written, a sentence on it; the identity is then the checkpoint's.
    """

    identity: dict[str, Any]
    damage: str | None = None


def parse_run_config(data: bytes, subject: str) -> RunConfig:
    """Read a run's configuration.

    Raises:
        DocumentError: if it is not what was written, or none of ours.
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
    return RunConfig(identity=identity, sources=urls, sealed="digest" in document)


def _digest(document: dict[str, Any]) -> str | None:
    """None if the document has none: Python reads NaN and lone surrogates."""
    try:
        return digest({name: value for name, value in document.items() if name != "digest"})
    except ValueError:
        return None


def read_run_config(run: Bucket) -> RunConfig:
    """The configuration that stands in a run's folder.

    Raises:
        DocumentError: if it is not what was written, or none of ours.
        StorageError: if it cannot be read.
    """
    return parse_run_config(run.read_document(CONFIG), run.where(CONFIG))


def recorded(run: Bucket) -> Recorded | None:
    """What the run in a folder was started as; None if its folder has no configuration.

    The newest whole checkpoint decides where the configuration is damaged, or is too old to carry its own digest.

    Raises:
        RunError: if it is damaged or somebody else's, and there is no checkpoint.
        StorageError: if it cannot be read, or there are checkpoints and none is whole.
    """
    if not run.exists(CONFIG):
        return None
    try:
        found = read_run_config(run)
    except DocumentError as error:
        return _from_checkpoint(run, error)
    if found.sealed or (state := checkpoint.load(run, check=_check_identity)) is None or state.identity == found.identity:
        return Recorded(identity=found.identity)
    damage = f"{run.where(CONFIG)} is not what the checkpoint of step {state.step} says of the run"
    return Recorded(identity=state.identity, damage=damage)


def _from_checkpoint(run: Bucket, error: DocumentError) -> Recorded:
    told = " ".join(str(error).split())
    state = checkpoint.load(run, check=_check_identity)
    if state is None:
        remedy = "choose another --out, or, if nothing in this folder is needed, delete it and start again"
        raise RunError(f"{told}. There is no checkpoint to rebuild it from: {remedy}") from error
    return Recorded(identity=state.identity, damage=f"{told}; it is rebuilt from the checkpoint of step {state.step}")


def _check_identity(state: checkpoint.State) -> None:
    if not isinstance(state.identity.get("config"), dict):
        raise StorageError("its identity has no config")


def write_run_config(run: Bucket, identity: dict[str, Any], sources: list[str]) -> None:
    """Put the configuration of a run into its folder."""
    run.put(CONFIG, RunConfig(identity=identity, sources=tuple(sources)).to_bytes())
