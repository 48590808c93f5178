"""What the folders above a file say about it: its modality, or its label."""

from __future__ import annotations

from crossdim.pipelines.sources import ignored_names
from crossdim.storage_schema.vocabulary import MODALITY_WORDS, Modality

#: Folders that programs make: neither they nor the folders in them were named by the person who sorted the data.
GENERATED_FOLDERS = ignored_names.FOLDERS | {"_work", "derivatives"}


def is_generated(folder: str) -> bool:
    """Whether a folder is hidden or made by a program, so that its name says nothing about the files in it."""
    return folder.startswith(".") or folder.lower() in GENERATED_FOLDERS


def list_chosen_folders(path: str, folder: str) -> list[str]:
    """List the names of the folders above a file that a person chose.

    Hidden and generated folders, and those inside them, are left out. Nothing above the source counts: a home directory may have
    any name.

    Args:
        path: of the file inside the source.
        folder: name of the source's own folder; empty if it counts for nothing.

    Returns:
        The nearest first, the source's own last.
    """
    chosen = [] if is_generated(folder) or not folder else [folder]
    for name in path.split("/")[:-1]:
        if is_generated(name):
            break
        chosen.append(name)
    return chosen[::-1]


def find_modality(path: str, folder: str) -> Modality:
    """Find the modality that the nearest folder above a file names.

    Args:
        path: of the file inside the source.
        folder: name of the source's own folder.

    Returns:
        The modality; OT where no folder names one.
    """
    words = (name.lower() for name in list_chosen_folders(path, folder))
    return next((MODALITY_WORDS[word] for word in words if word in MODALITY_WORDS), Modality.OT)


def find_label(path: str, folder: str) -> str | None:
    """Find the name of the nearest folder above a file that a person chose.

    Args:
        path: of the file inside the source.
        folder: name of the source's own folder.

    Returns:
        The name; None if there is no such folder.
    """
    return next(iter(list_chosen_folders(path, folder)), None)
