"""Names that indicate label maps: whole words of file and folder names, as nnU-Net, MSD, BIDS and most others write them."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from crossdim.storage_schema.vocabulary import MODALITY_WORDS

#: Words that mean a label map.
LABEL_WORDS = frozenset(
    {
        "annot",
        "annotation",
        "annotations",
        "aparc",
        "aseg",
        "brainmask",
        "csfseg",
        "dseg",
        "gmseg",
        "groundtruth",
        "label",
        "labelmap",
        "labelmaps",
        "labels",
        "labeled",
        "labelled",
        "lesionmask",
        "lesionseg",
        "mask",
        "maskimage",
        "masks",
        "msk",
        "msks",
        "parc",
        "parcellation",
        "parcellations",
        "probseg",
        "seg",
        "segm",
        "segmask",
        "segmentation",
        "segmentations",
        "segmentationmask",
        "segmentationmasks",
        "segs",
        "wmseg",
    }
)
#: Words that often mean one, and often something else: GT may be initials, and a lesion a photograph of it.
WEAK_LABEL_WORDS = frozenset({"contour", "contours", "gt", "lesion", "lesions", "roi", "rois", "truth"})
#: Words that mean an image, and words that name no patient: dropped when names of partners are compared.
IMAGE_WORDS = frozenset(MODALITY_WORDS) | {
    "cxr",
    "data",
    "derivatives",
    "dicom",
    "frame",
    "frames",
    "image",
    "imaging",
    "images",
    "img",
    "imgs",
    "input",
    "inputs",
    "jpeg",
    "jpg",
    "nifti",
    "nii",
    "orig",
    "original",
    "originals",
    "picture",
    "pictures",
    "png",
    "raw",
    "scan",
    "scans",
    "slice",
    "slices",
    "t1w",
    "t1c",
    "t1ce",
    "t1gd",
    "t2w",
    "vol",
    "vols",
    "volume",
    "volumes",
}
#: ``without_mask`` and ``no label`` are classes.
_NEGATIONS = frozenset({"no", "non", "not", "un", "with", "without"})
#: Names that nnU-Net and the Medical Segmentation Decathlon give to folders of label maps; nothing else has such names.
_NNUNET_LABELS = re.compile(r"labels(Tr|Ts|Va|Val)(_.*)?|gt_segmentations")
#: BIDS file names: entities, then the suffix that says what the file is.
_BIDS = re.compile(r"sub-[0-9A-Za-z]+_.*")
_BIDS_SUFFIXES = frozenset({"dseg", "probseg", "mask", "msk"})
#: CHAOS keeps label maps in ``Ground``, beside folders of DICOM.
_CHAOS_LABELS = re.compile(r"(.*/)?((T1DUAL|T2SPIR)/Ground/[^/]+|Ground/[^/]*_GT_[^/]+)")
#: Folders beside each other, of which one holds images and the other their label maps, whatever the files are called.
_FOLDERS_OF_IMAGES = frozenset({"images", "imgs"})
_FOLDERS_OF_LABELS = frozenset({"annotations", "masks", "segmentations"})
#: CHASE: drawn by the first or second human observer.
_OBSERVER = re.compile(r"(?i)(?<![a-z0-9])(1st|2nd)[\W_]*ho(?![a-z0-9])")
_CHANNEL = re.compile(r"[0-9]{4}")

Words = tuple[str, ...]


def stem(path: str) -> str:
    """The name of a file without its extension."""
    return re.sub(r"(?i)(\.nii)?\.(gz|nii|png|jpe?g|hdr|nrrd|nhdr|mh[ad])$", "", path.rpartition("/")[2])


def split_words(name: str) -> Words:
    """The words of a name in lower case: ``labelsTr`` is labels and tr, ``mask012`` is mask and 012."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", unicodedata.normalize("NFC", name))
    spaced = _OBSERVER.sub(" groundtruth ", re.sub(r"(?i)ground[\W_]*truth", " groundtruth ", spaced))
    words: list[str] = []
    for word in re.findall(r"[^\W_]+", spaced.lower()):
        numbered = re.fullmatch(r"([a-z]+)([0-9]+)", word)
        known = LABEL_WORDS | WEAK_LABEL_WORDS | IMAGE_WORDS
        words += numbered.groups() if numbered and word not in known and numbered[1] in known else [word]
    return tuple(words)


def _find_word(words: Words, wanted: frozenset[str]) -> str | None:
    """The first of ``wanted`` among the words, unless a word before it negates it."""
    return next((w for n, w in enumerate(words) if w in wanted and not (n and words[n - 1] in _NEGATIONS)), None)


def find_label_word(path: str, vocabulary: frozenset[str] = LABEL_WORDS) -> str | None:
    """Find the word by which a file's name says that it is a label map. In BIDS names only the suffix counts.

    Args:
        path: of the file.
        vocabulary: the words, in lower case.

    Returns:
        The word; None if there is none.
    """
    name = stem(path)
    return _find_word(split_words(name.rpartition("_")[2] if _BIDS.fullmatch(name) else name), vocabulary)


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelFolders:
    """Consecutive folders above a file whose names say that they hold label maps: from ``start`` to before ``stop``."""

    start: int
    stop: int
    word: str


def find_label_folders(path: str) -> LabelFolders | None:
    """Find which of the folders above a file say that they hold label maps.

    The nearest folder that is named for images or label maps decides, by its first or last word; a file whose name consists
    only of
    a word for an image is an image wherever it is.
    """
    *folders, _ = path.split("/")
    if set(split_words(stem(path))) <= IMAGE_WORDS:
        return None
    for index in reversed(range(len(folders))):
        word = _find_folder_word(folders[index])
        if word is not None:
            start = index
            while start and _find_folder_word(folders[start - 1]) is not None:
                start -= 1
            return LabelFolders(start=start, stop=index + 1, word=word)
        if _ends(folders[index]) & IMAGE_WORDS:
            return None
    return None


def _ends(folder: str) -> set[str]:
    words = split_words(folder)
    return {words[0], words[-1]} if words else set()


def _find_folder_word(folder: str) -> str | None:
    """The word by which a folder says that it holds label maps: its first or its last, or the last before words for images."""
    words = split_words(folder)
    last = next((word for word in reversed(words) if word not in IMAGE_WORDS), None)
    ends = {*words[:1], last}
    found = (_find_word(split_words(folder), words) for words in (LABEL_WORDS, WEAK_LABEL_WORDS - {"lesion", "lesions"}))
    return next((word for word in found if word in ends), None)


def find_image_parents(path: str) -> set[str]:
    """Folders that hold an image in a folder of images."""
    return _find_parents(path, _FOLDERS_OF_IMAGES)


def find_label_parents(path: str) -> set[str]:
    """Folders that hold a file in a folder of label maps; if one holds images alike, the file is a label map."""
    return _find_parents(path, _FOLDERS_OF_LABELS)


def _find_parents(path: str, names: frozenset[str]) -> set[str]:
    *folders, _ = path.split("/")
    return {"/".join(folders[:index]) for index, folder in enumerate(folders) if folder.lower() in names}


def find_label_layout(path: str, *, is_volume: bool) -> str | None:
    """Find the layout by which a file is a label map, whatever other files there are.

    Args:
        path: of the file inside the source.
        is_volume: whether it is a volume; only for those BIDS counts.

    Returns:
        The layout's name (CHAOS, nnU-Net and MSD, or BIDS); None if it is of none.
    """
    if _CHAOS_LABELS.fullmatch(path):
        return "CHAOS"
    *folders, _ = path.split("/")
    if any(_NNUNET_LABELS.fullmatch(folder) for folder in folders):
        return "nnU-Net and the Medical Segmentation Decathlon"
    if not is_volume:
        return None
    of_bids = _BIDS.fullmatch(stem(path)) or "derivatives" in folders
    return "BIDS" if of_bids and stem(path).rpartition("_")[2] in _BIDS_SUFFIXES else None


def _bare(words: Words) -> Words:
    return tuple(word for word in words if word not in LABEL_WORDS | WEAK_LABEL_WORDS | IMAGE_WORDS)


def _bare_folders(folders: list[str]) -> tuple[Words, ...]:
    return tuple(bare for folder in folders if (bare := _bare(split_words(folder))))


Place = tuple[tuple[Words, ...], Words]


def list_image_places(path: str) -> list[Place]:
    """Reduce an image's path: without words for images, with and without nnU-Net's number of a channel.

    Of a folder that is named for images, one word may be enough, as ``ISIC2018_Task1-2_Training_Input`` shares with
    ``ISIC2018_Task1_Training_GroundTruth``.
    """
    *folders, _ = path.split("/")
    words = _bare(split_words(stem(path)))
    channels = [words[:-1]] if words and _CHANNEL.fullmatch(words[-1]) else []
    trees = [_bare_folders(folders)]
    for index, folder in enumerate(folders):
        if _ends(folder) & IMAGE_WORDS and not set(split_words(folder)) & (LABEL_WORDS | WEAK_LABEL_WORDS):
            trees += _reduce_to_one_word(folders, index, index + 1)
    return [(tree, one) for tree in dict.fromkeys(trees) for one in (words, *channels)]


def _reduce_to_one_word(folders: list[str], start: int, stop: int) -> list[tuple[Words, ...]]:
    """Folders of which those from ``start`` to before ``stop`` are one word, for each of their words."""
    above, below = _bare_folders(folders[:start]), _bare_folders(folders[stop:])
    return [(*above, (word,), *below) for bare in _bare_folders(folders[start:stop]) for word in bare if not word.isdigit()]


def list_label_places(path: str, *, within: LabelFolders | None, short: bool) -> list[Place]:
    """List where the image of a label map may be: in the same folder, or beside the folder of label maps, under the same name.

    Args:
        path: of the label map.
        within: its folders of label maps, if it is in such.
        short: whether the image may have any shorter name, such as ``ct`` for ``liver`` or ``12`` for ``12_liver_mask``.

    Returns:
        Folders and words of the image's name, the likeliest first.
    """
    *folders, _ = path.split("/")
    trees = [folders]
    if within is not None:
        trees += [folders[: within.start] + folders[within.stop :], folders[: within.start]]
    places = [_bare_folders(tree) for tree in trees]
    if within is not None:
        places += _reduce_to_one_word(folders, within.start, within.stop)
    words = _bare(split_words(stem(path)))
    lengths = range(len(words), -1 if short else 0, -1) if words else [0]
    return [(place, words[:length]) for place in places for length in lengths]
