"""What the folders above a file say of it: its modality, or its label."""

from __future__ import annotations

from crossdim.pipelines.sources import ignored_names
from crossdim.storage_schema.vocabulary import MODALITY_WORDS, Modality

#: Folders that programs make of images: neither they nor what lies below them was named by whoever sorted the data.
GENERATED_FOLDERS = ignored_names.FOLDERS | {"_work", "derivatives"}


def is_generated(folder: str) -> bool:
    """Whether a folder is hidden, or made by a program, so that its name says nothing of the files in it."""
    return folder.startswith(".") or folder.lower() in GENERATED_FOLDERS


def telling_folders(path: str, folder: str) -> list[str]:
    """Names of the folders above a file that somebody chose, the nearest first, the source's own last.

    What lies in a hidden or generated folder is spoken of by the folders above that one. Nothing above the source counts:
    a home directory may be called anything.
    """
    chosen = [] if is_generated(folder) or not folder else [folder]
    for name in path.split("/")[:-1]:
        if is_generated(name):
            break
        chosen.append(name)
    return chosen[::-1]


def modality_in(path: str, folder: str) -> Modality:
    """The modality named by the nearest folder above a file, up to the source's own; OT where none is."""
    words = (name.lower() for name in telling_folders(path, folder))
    return next((MODALITY_WORDS[word] for word in words if word in MODALITY_WORDS), Modality.OT)


def label_in(path: str, folder: str) -> str | None:
    """The name of the nearest folder above a file that somebody chose."""
    return next(iter(telling_folders(path, folder)), None)
