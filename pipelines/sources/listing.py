"""List the objects of one or several sources, in one order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from crossdim.foundation.bucket import Bucket, StoredObject
from crossdim.foundation.location import remove_user, split_query
from crossdim.pipelines.sources.npz_paths import SUFFIX, ImagePath
from crossdim.pipelines.sources.source_bucket import SourceBucket, open_object
from crossdim.storage_schema.errors import SampleError, StorageError, UsageError
from crossdim.storage_schema.names import escape_name, printable


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """One object of one source.

    Attributes:
        source: number of the source on the command line.
        path: relative to the source.
        uri: its name in the catalog: the path, behind the source's folder name where there are several sources. It holds
            neither host nor mount point, so that a moved bucket gives the same bytes.
        size: in bytes.
        version: changes when the content does (see ``StoredObject``).
        changed_at: when the store last wrote it (see ``StoredObject``).
        problem: why it cannot be read, a key of :data:`crossdim.foundation.object_store.PROBLEMS` or, with a ``reason``, the rule
            that its list of images breaks; "" if it can.
        reason: what is wrong with its list of images; "" if nothing is.
        label: that the file states of an image in it.
    """

    source: int
    path: str
    uri: str
    size: int
    version: str = ""
    changed_at: int = 0
    problem: str = ""
    reason: str = ""
    label: str | None = None


#: Names of the files that ``prepare`` keeps with the raw data: the secret key of its hashes, and the table of hashed names.
SALT_NAME = ".crossdim-salt"
NAME_MAP_PREFIX = ".crossdim-names-"


def is_kept_by_prepare(path: str) -> bool:
    """Whether a file among raw data was written by ``prepare``, and so is not an input."""
    name = path.rsplit("/", 1)[-1]
    return name == SALT_NAME or name.startswith(NAME_MAP_PREFIX)


def folder_name(url: str) -> str:
    """The last part of a URL, as names are written: without a query, a user or a password, which may be secrets."""
    return escape_name(remove_user(split_query(url)[0]).rstrip("/").rsplit("/", 1)[-1])


def split_folder(source: Bucket) -> tuple[Bucket, str]:
    """A source that may be a single object, as a folder and a path inside it (empty for a folder)."""
    url, query = split_query(source.url)
    parent, slash, name = url.rstrip("/").rpartition("/")
    return (Bucket((parent or "/") + query if slash else ".", source.options), escape_name(name))


def _build_source_file(number: int, path: str, uri: str, found: StoredObject) -> SourceFile:
    return SourceFile(
        source=number,
        path=path,
        uri=uri,
        size=found.size,
        version=found.version,
        changed_at=found.changed_at,
        problem=found.problem,
    )


def _list_source(number: int, source: Bucket, prefix: str) -> tuple[Bucket, list[SourceFile]]:
    found = source.list_objects(problems=True)
    if [entry.path for entry in found] == [""]:  # the source is itself an object
        source, name = split_folder(source)
        return source, [_build_source_file(number, name, name, found[0])]
    files = [
        _build_source_file(number, entry.path, prefix + entry.path, entry)
        for entry in found
        if not is_kept_by_prepare(entry.path)
    ]
    if not files:
        raise StorageError(f"{source.where('')} holds no file; name a folder or bucket with images or volumes in it")
    return source, files


def _expand(source: Bucket, file: SourceFile) -> list[SourceFile]:
    """The images of an .npz file of MedMNIST's layout; any other file as it is, and a damaged one with what is wrong with it."""
    if not file.path.lower().endswith(SUFFIX) or file.problem or not file.size:
        return [file]
    try:
        images = list(open_object(source, file.path)[0].iterate_images())
    except SampleError as error:
        return [replace(file, problem=error.rule, reason=error.reason)]
    prefix = file.uri.removesuffix(file.path)
    expanded = []
    for part, index, size, label in images:
        path = str(ImagePath(container=file.path, part=part, index=index))
        expanded.append(replace(file, path=path, uri=prefix + path, size=size, label=label))
    return expanded or [file]


def list_sources(sources: Sequence[Bucket]) -> tuple[tuple[Bucket, ...], list[SourceFile]]:
    """All files of all sources, sorted by their names; images of MedMNIST's .npz files count as files.

    Returns:
        The sources as folders, and the files.

    Raises:
        StorageError: for a source that does not exist or is empty.
        UsageError: if two sources would give one name to two files.
    """
    several = len(sources) > 1
    folders, files = [], []
    for number, source in enumerate(sources):
        folder, found = _list_source(number, source, f"{folder_name(source.url)}/" if several else "")
        folders.append(SourceBucket(folder.url, folder.options))
        files += [one for file in found for one in _expand(folder, file)]
    twice = [uri for uri, count in Counter(file.uri for file in files).items() if count > 1]
    if twice:
        raise UsageError(f"two sources hold a file named {printable(twice[0])}; give sources whose folder names differ")
    return tuple(folders), sorted(files, key=lambda file: file.uri)
