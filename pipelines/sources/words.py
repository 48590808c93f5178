"""The modality that a path speaks of."""

from __future__ import annotations

from storage_schema.vocabulary import MODALITY_WORDS, Modality


def modality_in(path: str, folder: str) -> Modality:
    """The modality named by the nearest folder above a file, up to the source's own; OT where none is.

    Only whole folder names count, and nothing above the source: a home directory may be called anything.
    """
    folders = f"{folder}/{path}".lower().split("/")[:-1]
    return next((MODALITY_WORDS[word] for word in reversed(folders) if word in MODALITY_WORDS), Modality.OT)
