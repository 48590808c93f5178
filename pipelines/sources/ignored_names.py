"""Files that systems and editors leave beside images: recognised by their names alone, and never opened.

Only the path below the source counts; the user chose the source's own name.
"""

from __future__ import annotations

from crossdim.pipelines.readers.registry import promised_family

#: Files, by their whole name in lower case.
FILES = frozenset(
    {
        "thumbs.db",
        "ehthumbs.db",
        "ehthumbs_vista.db",
        "desktop.ini",
        "picasa.ini",
        "icon\r",
        "dwl.db",
        "synoindex.db",
        "synofile_thumb",
    }
)
#: Folders, by their whole name in lower case; everything in them is ignored.
FOLDERS = frozenset(
    {
        "__macosx",
        "@eadir",
        "@tmp",
        "@recycle",
        "@recently-snapshot",
        "@sharebin",
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "recycler",
        "system volume information",
        "lost+found",
        "__pycache__",
        "network trash folder",
        "temporary items",
    }
)
#: Beginnings of names: AppleDouble, lock files and deleted files that are still open.
PREFIXES = ("._", "~$", ".~lock.", ".nfs", ".fuse_hidden", ".#")
#: Ends of names: backups, swap files, and copies that are not finished.
SUFFIXES = ("~", ".swp", ".swo", ".part", ".partial", ".filepart", ".crdownload", ".download")

REASONS = {
    "hidden": "its name, or a folder's above it, starts with a dot",
    "litter": "systems and editors leave such files beside others",
}


def _is_litter(name: str) -> bool:
    lower = name.lower()
    emacs = name.startswith("#") and name.endswith("#")
    return lower in FILES or lower.startswith(PREFIXES) or lower.endswith(SUFFIXES) or emacs


def match_ignored_name(path: str) -> str | None:
    """Find the rule by which a file is ignored without being opened, a key of ``REASONS``; None if it must be opened.

    A hidden file whose name ends as an image's does is not ignored: it may be somebody's image.

    Args:
        path: relative to its source.
    """
    *folders, name = path.split("/")
    if any(folder.lower() in FOLDERS for folder in folders) or _is_litter(name):
        return "litter"
    if any(folder.startswith(".") and folder not in (".", "..") for folder in folders):
        return "hidden"
    return "hidden" if name.startswith(".") and promised_family(name) is None else None
