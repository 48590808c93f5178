"""Label maps recognised by name: a word of the name says so, and the image that it belongs to is there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from crossdim.pipelines.sources.label_names import (
    WEAK_LABEL_WORDS,
    LabelFolders,
    find_image_parents,
    find_label_folders,
    find_label_layout,
    find_label_parents,
    find_label_word,
    list_image_places,
    list_label_places,
)

RULE = "label_map"


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """A file that may be a label map.

    Attributes:
        path: inside the source, behind the source's own folder only where there are several sources.
        is_volume: or a picture.
        layout_path: inside the folder that holds the source: the source's own folder may be one of a layout.
        shape: by its header, if that was read.
        lossless: whether labels survive in its format.
    """

    path: str
    is_volume: bool
    layout_path: str
    shape: tuple[int, ...] | None = None
    lossless: bool = True


@dataclass(frozen=True, slots=True)
class NamedMaps:
    """What names say about candidates, by index.

    Attributes:
        reasons: why a file is a label map.
        unsure: the words of volumes that only their voxels can decide.
        by_layout: of ``reasons``, those given by a layout that is used for label maps only.
    """

    reasons: dict[int, str] = field(default_factory=dict)
    unsure: dict[int, str] = field(default_factory=dict)
    by_layout: set[int] = field(default_factory=set)


class _Images:
    """Images, indexed by their paths without words for images."""

    def __init__(self, candidates: Sequence[Candidate], indices: Sequence[int]) -> None:
        self._candidates = candidates
        self._by_place: dict[object, list[int]] = {}
        for index in indices:
            one = candidates[index]
            for place in list_image_places(one.path):
                self._by_place.setdefault((one.is_volume, place), []).append(index)

    def partner_of(self, index: int, within: LabelFolders | None, *, weak: bool) -> bool:
        """Whether the image of a label map is there; for a weak word it must be of the same size."""
        one = self._candidates[index]
        for place in list_label_places(one.path, within=within, short=one.is_volume):
            for other in self._by_place.get((one.is_volume, place), ()):
                image = self._candidates[other]
                if not weak or (one.lossless and one.shape is not None and one.shape == image.shape):
                    return True
        return False


def find_by_name(candidates: Sequence[Candidate]) -> NamedMaps:
    """Find label maps by layout and name.

    A file is one if it is where nnU-Net, MSD or CHAOS keep them, and a volume also where BIDS does: for these layouts the
    source's
    own folder counts too, since nothing else has such names. Below the source, any file in ``masks`` beside ``images`` is one,
    and so
    is a file if a word of its name or of its folder's says so and the image that it belongs to is there. Without that image, a
    picture
    is an image, since classes are called ``mask`` too, and for a volume the voxels decide.
    """
    found = NamedMaps()
    by_stem = {index: word for index, one in enumerate(candidates) if (word := find_label_word(one.path))}
    weak = {
        index: word
        for index, one in enumerate(candidates)
        if index not in by_stem and (word := find_label_word(one.path, WEAK_LABEL_WORDS))
    }
    by_folder = {index: folders for index, one in enumerate(candidates) if (folders := find_label_folders(one.path))}

    def settle(index: int, images: _Images, word: str, what: str) -> None:
        if images.partner_of(index, by_folder.get(index), weak=word in WEAK_LABEL_WORDS):
            found.reasons[index] = f"{what} says {word}, and the image that it belongs to is there"
        elif candidates[index].is_volume and word not in WEAK_LABEL_WORDS:
            found.unsure.setdefault(index, word)

    for index, one in enumerate(candidates):
        if layout := find_label_layout(one.layout_path, is_volume=one.is_volume):
            found.reasons[index] = f"label maps lie so in the layout of {layout}"
            found.by_layout.add(index)
    beside_images = {(one.is_volume, parent) for one in candidates for parent in find_image_parents(one.path)}
    for index in by_folder:
        one = candidates[index]
        if any((one.is_volume, parent) in beside_images for parent in find_label_parents(one.path)):
            found.reasons[index] = "its folder lies beside one of images"
    unnamed = _Images(candidates, [n for n in range(len(candidates)) if n not in by_stem and n not in weak])
    for index, word in sorted({**by_stem, **weak}.items()):
        if index not in found.reasons:
            settle(index, unnamed, word, "its name")
    outside = [n for n in range(len(candidates)) if n not in found.reasons | found.unsure and n not in by_folder]
    images = _Images(candidates, outside)
    for index, folders in by_folder.items():
        if index not in found.reasons:
            settle(index, images, folders.word, "its folder's name")
    for index in found.reasons:
        found.unsure.pop(index, None)
    return found
