"""The extract of PneumoniaMNIST is what its text says, and its folders hold its pixels."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from demo.extract_radiographs import TRAIN_IMAGES, choose, write_extract
from demo.radiographs import EXTRACT, LABELS, SPLITS, write_radiographs

TEXT = EXTRACT.with_name("RADIOGRAPHS.md").read_text()


def load(path: Path = EXTRACT) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as extract:
        return {name: extract[name] for name in extract.files}


def test_it_is_what_its_text_says() -> None:
    extract = load()
    counts = [np.bincount(extract[f"{split}_labels"][:, 0]).tolist() for split in SPLITS]
    (normal, sick), test = re.findall(r"\((\d+) (?:normal, |and )(\d+)", TEXT)
    assert counts == [[int(normal), int(sick)], [int(n) for n in test]]
    assert extract["train_images"].shape == (TRAIN_IMAGES, 28, 28)
    assert f"{sum(map(sum, counts)):,} chest radiographs" in TEXT
    assert EXTRACT.stat().st_size < 1_000_000


def test_its_licence_and_what_to_cite_are_named() -> None:
    """Of CC BY 4.0: authors, a link to the licence, and what was changed."""
    for words in ("creativecommons.org/licenses/by/4.0", "Kermany", "Yang", "doi.org/10.1038/s41597-022-01721-8", "| changes |"):
        assert words in TEXT


def test_no_image_of_one_split_is_in_the_other() -> None:
    """What the probe is asked about was not trained on."""
    extract = load()
    train, test = ({image.tobytes() for image in extract[f"{split}_images"]} for split in SPLITS)
    assert not train & test


def test_folders_hold_the_pixels_and_the_labels(tmp_path: Path) -> None:
    assert write_radiographs(tmp_path, most=5) == 10
    extract = load()
    for split in SPLITS:
        found = sorted((tmp_path / split).rglob("*.png"), key=lambda path: path.name)
        assert [path.parent.name for path in found] == [LABELS[label] for label in extract[f"{split}_labels"][:5, 0]]
        for path, pixels in zip(found, extract[f"{split}_images"][:5], strict=True):
            assert np.array_equal(np.asarray(Image.open(path)), pixels)


@pytest.mark.integration
def test_all_are_written(tmp_path: Path) -> None:
    assert write_radiographs(tmp_path) == len(list(tmp_path.rglob("*.png"))) == 1324


def test_the_line_that_made_it_draws_in_proportion(tmp_path: Path) -> None:
    """Each image is numbered in its first pixels; so are the labels drawn with it."""
    rng = np.random.default_rng(3)
    whole: dict[str, np.ndarray] = {}
    for split, count in (("train", 1400), ("val", 4), ("test", 30)):
        images = rng.integers(0, 256, (count, 28, 28), np.uint8)
        labels = (np.arange(count) % 4 > 0).astype(np.uint8)[:, None]
        images[:, 0, 0] = labels[:, 0]
        whole |= {f"{split}_images": images, f"{split}_labels": labels}
    np.savez(tmp_path / "whole.npz", **whole)
    write_extract(tmp_path / "whole.npz", tmp_path / "part.npz")
    part = load(tmp_path / "part.npz")
    assert np.bincount(part["train_labels"][:, 0]).tolist() == [175, 525]
    assert np.array_equal(part["train_images"][:, 0, 0], part["train_labels"][:, 0])
    assert np.array_equal(part["test_images"], whole["test_images"])
    assert set(part) == {f"{split}_{what}" for split in SPLITS for what in ("images", "labels")}


def test_the_same_images_are_drawn_again() -> None:
    labels = np.arange(40, dtype=np.uint8) % 2
    assert np.array_equal(choose(labels, 10), choose(labels, 10))
    assert len(set(choose(labels, 10).tolist())) == 10
