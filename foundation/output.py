"""The folder that a verb writes into, looked at before anything is written: nothing of ours lies among other people's files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

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
    """Refuse a folder that holds files which are not what the verb writes there.

    Args:
        out: the folder; it need not exist.
        kind: what the verb writes, such as ``dataset``.
        is_ours: whether the paths in the folder are of something that the verb may go on with.
        is_ignored: whether a file of that path is no reason to refuse a folder.
        option: how the folder was named on the command line.
        remedy: what to do.

    Raises:
        UsageError: naming what is there.
    """
    if not out.exists():
        return
    found = [entry.path for entry in out.listing(problems=True)]
    if found == [""]:
        raise UsageError(f"{option} {out.where('')} is a file; name a folder, which is made if it does not exist")
    foreign = [path for path in found if not is_ignored(path)]
    if foreign and not is_ours(found):
        files = "1 file that is" if len(foreign) == 1 else f"{len(foreign)} files that are"
        raise UsageError(
            f"{option} {out.where('')} holds {files} no {kind} of crossdim, such as {printable(foreign[0])}; {remedy}"
        )


def check_outside(out: Bucket, datasets: Iterable[Bucket], option: str = "--out") -> None:
    """Refuse a folder that is a dataset which is read, or lies in one, whatever links lead to either.

    Raises:
        UsageError: naming the two.
    """
    for dataset in datasets:
        if contains(dataset.url, out.url):
            raise UsageError(
                f"{option} {out.where('')} lies inside the dataset {dataset.where('')}, where nothing may be written; "
                "name a folder beside it"
            )
