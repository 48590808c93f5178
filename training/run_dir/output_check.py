"""The folder of a run, looked at before anything is written into it: a run, nothing yet, or other people's files."""

from __future__ import annotations

import re
from collections.abc import Sequence

from crossdim.foundation.bucket import Bucket
from crossdim.foundation.output import EMPTY_FOLDER, check_output
from crossdim.storage_schema.errors import DocumentError
from crossdim.training.run_dir.run_config import CONFIG, parse_run_config

#: What only a run has, also one whose configuration is damaged or lost.
_OF_A_RUN = re.compile(r"checkpoints/(latest\Z|step-\d{8}/)|events/\d+-[^/]*\.json\Z|metrics/\d+\.jsonl\Z")


def is_hidden(path: str) -> bool:
    """Whether a file, or a folder that it is in, has a name that begins with a dot, as ``.DS_Store``."""
    return any(part.startswith(".") for part in path.split("/"))


def check_run_folder(run: Bucket, option: str = "--out", remedy: str = EMPTY_FOLDER) -> None:
    """Refuse a folder that holds files and no run; a run that has only just begun is one.

    Raises:
        UsageError: naming what is there.
    """

    def is_run(paths: Sequence[str]) -> bool:
        if any(map(_OF_A_RUN.match, paths)):
            return True
        if CONFIG not in paths:
            return False
        if all(path == CONFIG or is_hidden(path) for path in paths):
            return True  # whoever reads it says what ails it
        try:
            parse_run_config(run.read(CONFIG), run.where(CONFIG))
        except DocumentError:
            return False
        return True

    check_output(run, kind="run", is_ours=is_run, is_ignored=is_hidden, option=option, remedy=remedy)
