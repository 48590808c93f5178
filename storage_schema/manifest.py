"""The manifest: the document that makes a folder a dataset. It is written last and names every other object."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import cast

from crossdim.storage_schema.digest import canonical_json, digest
from crossdim.storage_schema.errors import DocumentError, GeometryError, Problem
from crossdim.storage_schema.vocabulary import FORMAT_NAME, FORMAT_VERSION, READABLE_VERSIONS, REFUSED_SUFFIXES, Presentation

MANIFEST_PATH = "manifest.json"
ROLES = ("catalog", "shard", "bank", "quarantine", "ignored")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")
_KEY_ID = re.compile(r"([0-9a-f]{16})?\Z")


@dataclass(frozen=True, kw_only=True, slots=True)
class ObjectEntry:
    """One published object: its path inside the dataset, its size in bytes, its hash, and its role."""

    path: str
    size: int
    sha256: str
    role: str


@dataclass(frozen=True, kw_only=True, slots=True)
class FileCounts:
    """What became of every file of the sources: each was used, quarantined or ignored.

    Raises:
        GeometryError: if the three do not add up to the total.
    """

    total: int
    used: int
    quarantined: int
    ignored: int

    def __post_init__(self) -> None:
        if self.total != self.used + self.quarantined + self.ignored:
            raise GeometryError(
                f"{self.total} files are not {self.used} used + {self.quarantined} quarantined + {self.ignored} ignored"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class Manifest:
    """A published dataset.

    ``preprocessing`` is the resolved configuration of every stage that touched a voxel. A checkpoint stores its digest, and a
    run refuses data with another one.

    Attributes:
        files: None in version 1, which does not count them.
        patient_key_id: names the secret key that patients are hashed with, without revealing it; empty where none was used.
        version: of the format; a manifest that was read keeps its own, and so its digest.
    """

    name: str
    presentation: Presentation
    num_samples: int
    num_quarantined: int
    preprocessing: dict[str, object]
    plan_digest: str
    objects: tuple[ObjectEntry, ...]
    files: FileCounts | None = None
    patient_key_id: str = ""
    version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        if self.version > 1 and self.files is None:
            raise GeometryError(f"a manifest of version {self.version} counts the files of its sources")

    @property
    def preprocessing_digest(self) -> str:
        """Digest of the preprocessing configuration."""
        return digest(self.preprocessing)

    @property
    def digest(self) -> str:
        """Digest of everything the document says: two datasets with equal digests hold equal bytes."""
        return digest(self._statements())

    def with_role(self, role: str) -> list[ObjectEntry]:
        """Objects of one role, in order."""
        return [entry for entry in self.objects if entry.role == role]

    def document(self) -> dict[str, object]:
        """The manifest as plain JSON values; since version 2 with its own digest, so that no bit of it changes unnoticed."""
        return self._statements() if self.version == 1 else self._statements() | {"digest": self.digest}

    def _statements(self) -> dict[str, object]:
        document = {
            "format": FORMAT_NAME,
            "version": self.version,
            "name": self.name,
            "presentation": str(self.presentation),
            "num_samples": self.num_samples,
            "num_quarantined": self.num_quarantined,
            "preprocessing": self.preprocessing,
            "preprocessing_digest": self.preprocessing_digest,
            "plan_digest": self.plan_digest,
            "objects": [asdict(entry) for entry in sorted(self.objects, key=lambda entry: entry.path)],
        }
        if self.files is not None:
            document |= {
                "num_files": self.files.total,
                "num_files_used": self.files.used,
                "num_files_quarantined": self.files.quarantined,
                "num_files_ignored": self.files.ignored,
                "patient_key_id": self.patient_key_id,
            }
        return document

    def to_bytes(self) -> bytes:
        """The document as it is published: equal manifests are equal bytes."""
        return canonical_json(self.document()) + b"\n"


Check = Callable[[object], str | None]


def _is(kind: type, least: int | None = None) -> Check:
    def check(value: object) -> str | None:
        if not isinstance(value, kind) or isinstance(value, bool):
            return f"found {value!r}; expected {kind.__name__}"
        if least is not None and cast(int, value) < least:
            return f"found {value!r}; expected at least {least}"
        return None

    return check


def _one_of(*known: object) -> Check:
    return lambda value: None if value in known else f"found {value!r}; expected {' or '.join(map(repr, known))}"


def _key_id(value: object) -> str | None:
    return None if isinstance(value, str) and _KEY_ID.match(value) else f"found {value!r}; expected 16 hex digits or nothing"


def _sha256(value: object) -> str | None:
    return None if isinstance(value, str) and _SHA256.match(value) else f"found {value!r}; expected 64 hex digits"


def _inside(value: object) -> str | None:
    if not isinstance(value, str) or not value:
        return f"found {value!r}; expected a path"
    if value.startswith("/") or "\\" in value or ".." in value.split("/") or ":" in value:
        return f"{value!r} leads out of the dataset"
    if {"", "."} & set(value.split("/")):
        return f"{value!r} is another spelling of a path; expected names joined by single slashes"
    if value.rsplit(".", 1)[-1].lower() in REFUSED_SUFFIXES:
        return f"{value!r} is of a kind that can run code when opened; refused"
    return None


FIELDS: dict[str, Check] = {
    "format": _one_of(FORMAT_NAME),
    "version": _one_of(*READABLE_VERSIONS),
    "name": _is(str),
    "presentation": _one_of(*(p.value for p in Presentation)),
    "num_samples": _is(int, 0),
    "num_quarantined": _is(int, 0),
    "preprocessing": _is(dict),
    "preprocessing_digest": _sha256,
    "plan_digest": _sha256,
    "objects": _is(list),
    "num_files": _is(int, 0),
    "num_files_used": _is(int, 0),
    "num_files_quarantined": _is(int, 0),
    "num_files_ignored": _is(int, 0),
    "patient_key_id": _key_id,
    "digest": _sha256,
}
#: Fields that version 2 added.
ADDED_IN_VERSION_2 = ("num_files", "num_files_used", "num_files_quarantined", "num_files_ignored", "patient_key_id", "digest")
OBJECT_FIELDS: dict[str, Check] = {"path": _inside, "size": _is(int, 0), "sha256": _sha256, "role": _one_of(*ROLES)}


def _find_field_problems(document: object, fields: dict[str, Check], loc: str) -> list[Problem]:
    if not isinstance(document, dict):
        return [Problem(loc=loc or "document", message=f"found {type(document).__name__}; expected an object")]
    prefix = f"{loc}." if loc else ""
    problems = [Problem(loc=prefix + name, message="is missing") for name in fields if name not in document]
    problems += [Problem(loc=prefix + str(name), message="is not a field") for name in document if name not in fields]
    for name, check in fields.items():
        message = check(document[name]) if name in document else None
        if message:
            problems.append(Problem(loc=prefix + name, message=message))
    return problems


def _find_problems(document: object) -> list[Problem]:
    version = document.get("version") if isinstance(document, dict) else None
    fields = {name: check for name, check in FIELDS.items() if not (version == 1 and name in ADDED_IN_VERSION_2)}
    problems = _find_field_problems(document, fields, "")
    if not isinstance(document, dict) or not isinstance(document.get("objects"), list):
        return problems
    for number, entry in enumerate(document["objects"]):
        problems += _find_field_problems(entry, OBJECT_FIELDS, f"objects[{number}]")
    counts = Counter(str(entry.get("path")) for entry in document["objects"] if isinstance(entry, dict))
    twice = sorted(path for path, count in counts.items() if count > 1)
    problems += [Problem(loc="objects", message=f"path {path!r} stands twice") for path in twice]
    preprocessing = document.get("preprocessing")
    if isinstance(preprocessing, dict) and document.get("preprocessing_digest", ...) not in (..., digest(preprocessing)):
        problems.append(Problem(loc="preprocessing_digest", message="does not belong to the preprocessing that stands beside it"))
    return problems or _check_file_counts(document) or _check_digest(document)


def _check_file_counts(document: dict[str, int]) -> list[Problem]:
    """The problem of a version 2 document whose used, quarantined and ignored files do not add up."""
    if document["version"] == 1:
        return []
    parts = [document[name] for name in ("num_files_used", "num_files_quarantined", "num_files_ignored")]
    if sum(parts) == document["num_files"]:
        return []
    return [Problem(loc="num_files", message=f"found {document['num_files']}; used, quarantined and ignored are {parts}")]


def _check_digest(document: dict[str, object]) -> list[Problem]:
    """The problem of a version 2 document that does not have the digest it was written with."""
    found = digest({name: value for name, value in document.items() if name != "digest"})
    if document["version"] == 1 or document["digest"] == found:
        return []
    return [Problem(loc="digest", message=f"is {found} and was {document['digest']} when written; restore the manifest")]


def parse_manifest(data: bytes, subject: str) -> Manifest:
    """Parse and check a manifest.

    Args:
        data: the bytes of ``manifest.json``.
        subject: where they came from, for the error.

    Returns:
        The manifest, of whichever readable version it is.

    Raises:
        DocumentError: listing every problem.
    """
    try:
        document = json.loads(data)
        canonical_json(document)  # Python reads NaN and lone surrogates, but no digest could be taken of them
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"{subject} is not a manifest", [Problem(loc="document", message=f"not JSON: {error}")]) from error
    problems = _find_problems(document)
    if problems:
        versions = " or ".join(map(str, READABLE_VERSIONS))
        raise DocumentError(f"{subject} is not a manifest of version {versions}", problems)
    return Manifest(
        name=document["name"],
        presentation=Presentation(document["presentation"]),
        num_samples=document["num_samples"],
        num_quarantined=document["num_quarantined"],
        preprocessing=document["preprocessing"],
        plan_digest=document["plan_digest"],
        objects=tuple(ObjectEntry(**entry) for entry in document["objects"]),
        files=_parse_file_counts(document),
        patient_key_id=document.get("patient_key_id", ""),
        version=document["version"],
    )


def _parse_file_counts(document: dict[str, int]) -> FileCounts | None:
    if document["version"] == 1:
        return None
    return FileCounts(
        total=document["num_files"],
        used=document["num_files_used"],
        quarantined=document["num_files_quarantined"],
        ignored=document["num_files_ignored"],
    )
