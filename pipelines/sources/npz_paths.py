"""Names of images inside of MedMNIST's .npz files: ``file.npz!/train/000012.npy``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from crossdim.storage_schema.vocabulary import Split

#: Ending of the files that hold images, in lower case.
SUFFIX = ".npz"
#: The parts of MedMNIST's files, and the split that each becomes: datasets have two, and ``val`` is not ``test``.
PARTS = {"test": Split.TEST, "train": Split.TRAIN, "val": Split.TRAIN}
_PATH = re.compile(rf"(?P<container>.*\.[nN][pP][zZ])!/(?P<part>{'|'.join(PARTS)})/(?P<index>\d+)\.npy", re.DOTALL)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImagePath:
    """One image of a container.

    Attributes:
        container: path of the .npz file.
        part: key of :data:`PARTS`.
        index: of the image in its part.
    """

    container: str
    part: str
    index: int

    def __str__(self) -> str:
        """As listings spell it; of one width, so that sorting by name keeps the order of the file."""
        return f"{self.container}!/{self.part}/{self.index:07d}.npy"


def parse_path(path: str) -> ImagePath | None:
    """Parse the path of an image; None for the path of a file."""
    found = _PATH.fullmatch(path) if "!/" in path else None
    return ImagePath(container=found["container"], part=found["part"], index=int(found["index"])) if found else None
