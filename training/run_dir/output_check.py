"""Checks the folder of a run before anything is written into it: it may hold a run or nothing, but no other files."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.output import EMPTY_FOLDER, check_output
from crossdim.storage_schema.errors import DocumentError, StorageError
from crossdim.training.run_dir.layout import CONFIG, is_of_a_run
from crossdim.training.run_dir.run_config import parse_run_config


def is_hidden(path: str) -> bool:
    """Whether a file, or a folder that it is in, has a name that begins with a dot, as ``.DS_Store``."""
    return any(part.startswith(".") for part in path.split("/"))


def describes_run(run: Bucket) -> bool:
    """Whether the configuration in a folder is that of a run, perhaps changed; many programs have files of this name.

    Raises:
        StorageError: if it cannot be read.
    """
    try:
        parse_run_config(run.read(CONFIG), run.where(CONFIG))
    except DocumentError as error:
        return any(problem.loc == "digest" for problem in error.problems)
    return True


def holds_run(folder: Bucket) -> bool:
    """Whether a folder holds a run; False if that cannot be told."""
    with contextlib.suppress(StorageError):
        return folder.exists(CONFIG) and describes_run(folder)
    return False


def check_run_folder(run: Bucket, option: str = "--out", remedy: str = EMPTY_FOLDER) -> None:
    """Check that a folder holds a run, or no files; a run that has only just begun is one.

    Args:
        run: the folder.
        option: of the command line, for the message.
        remedy: what to do, for the message.

    Raises:
        UsageError: naming what is there.
    """

    def is_run(paths: Sequence[str]) -> bool:
        """Whether a folder of these paths is a run."""
        if any(map(is_of_a_run, paths)):
            return True
        if CONFIG not in paths:
            return False
        if all(path == CONFIG or is_hidden(path) for path in paths):
            return True  # whoever reads it says what ails it
        return describes_run(run)

    check_output(run, kind="run", is_ours=is_run, is_ignored=is_hidden, option=option, remedy=remedy)
