"""Checks of the output folder before anything is written: a verb never mixes its files with other people's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.location import contains
from crossdim.storage_schema.errors import UsageError
from crossdim.storage_schema.names import printable

EMPTY_FOLDER = "name an empty folder, or one that does not exist yet"


def check_output(
    out: Bucket,
    *,
    kind: str,
    is_ours: Callable[[Sequence[str]], bool],
    is_ignored: Callable[[str], bool],
    option: str = "--out",
    remedy: str = EMPTY_FOLDER,
) -> None:
    """Refuse an output folder that holds files which the verb does not write.

    Args:
        out: the folder; it need not exist.
        kind: what the verb writes, such as ``dataset``.
        is_ours: given the paths in the folder, whether the verb may continue with them.
        is_ignored: given a path, whether that file is no reason to refuse the folder.
        option: that named the folder on the command line.
        remedy: what to do, for the message.

    Raises:
        UsageError: naming what is there.
    """
    if not out.exists():
        return
    found = [entry.path for entry in out.list_objects(problems=True)]
    if found == [""]:
        raise UsageError(f"{option} {out.where('')} is a file; name a folder, which is made if it does not exist")
    foreign = [path for path in found if not is_ignored(path)]
    if foreign and not is_ours(found):
        files = "1 file that is" if len(foreign) == 1 else f"{len(foreign)} files that are"
        raise UsageError(
            f"{option} {out.where('')} holds {files} no {kind} of crossdim, such as {printable(foreign[0])}; {remedy}"
        )


def check_not_nested(out: Bucket, kind: str, holds: Callable[[Bucket], bool]) -> None:
    """Refuse an output folder of this machine that lies in another output; stores are not asked level by level.

    Args:
        out: the folder; it need not exist.
        kind: of output, such as ``dataset``.
        holds: whether a folder holds one.

    Raises:
        UsageError: naming the folder above.
    """
    if not out.is_local:
        return
    for above in Path(out.root).resolve().parents:
        if holds(Bucket(str(above))):
            raise UsageError(f"--out {out.where('')} lies inside the {kind} {printable(str(above))}; name a folder beside it")


def check_outside(out: Bucket, datasets: Iterable[Bucket], option: str = "--out") -> None:
    """Refuse an output folder that is one of the datasets which are read, or lies in one, after following links.

    Args:
        out: the folder; it need not exist.
        datasets: that are read.
        option: that named the folder on the command line.

    Raises:
        UsageError: naming the folder and the dataset.
    """
    for dataset in datasets:
        if contains(dataset.url, out.url):
            raise UsageError(
                f"{option} {out.where('')} lies inside the dataset {dataset.where('')}, where nothing may be written; "
                "name a folder beside it"
            )
