"""A sample knows what it is, and its numbers know their unit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdim.storage_schema.digest import canonical_json, digest, sample_key
from crossdim.storage_schema.errors import GeometryError
from crossdim.storage_schema.sample import Scaling
from crossdim.storage_schema.vocabulary import MODALITY_WORDS, REFUSED_SUFFIXES, Encoding, Modality, Presentation, Split
from tests.strategies import sample


def test_stored_ct_numbers_are_hounsfield_units():
    """Water is 0 HU, air -1000 HU: the two values by which every CT is calibrated."""
    scaling = Scaling(slope=1.0, intercept=-1000.0, low=-1000.0, high=1000.0)
    stored = np.array([0, 1000, 2000], np.int16)

    assert scaling.physical(stored).tolist() == [-1000, 0, 1000]
    assert scaling.unit(stored).tolist() == [0, 0.5, 1]
    assert scaling.unit(stored).dtype == np.float32


@given(
    st.floats(0.01, 100),
    st.floats(-2000, 2000),
    st.floats(-2000, 2000),
    st.floats(1, 5000),
    st.lists(st.integers(-(2**15), 2**15 - 1), min_size=1),
)
def test_unit_range_is_the_physical_value_between_low_and_high(slope, intercept, low, span, values):
    """The one multiply-add that a loader does is the definition, within what float32 can hold."""
    scaling = Scaling(slope=slope, intercept=intercept, low=low, high=low + span)
    stored = np.array(values, np.int16)
    exact = (stored.astype(np.float64) * slope + intercept - low) / span
    magnitude = (np.abs(stored.astype(np.float64)) * slope + abs(intercept) + abs(low)) / span

    assert np.all(np.abs(scaling.unit(stored) - exact) <= 4e-7 * (magnitude + 1))


@pytest.mark.parametrize(
    "wrong", [{"low": 1.0, "high": 1.0}, {"slope": 0.0}, {"low": float("-inf")}, {"intercept": float("nan")}]
)
def test_a_scaling_that_loses_the_picture_is_refused(wrong):
    """A slope of zero or an empty range turns every image into the same one."""
    with pytest.raises(GeometryError, match="scaling needs"):
        Scaling(**({"low": 0.0, "high": 1.0} | wrong))


@pytest.mark.parametrize(
    ("presentation", "shape"),
    [(Presentation.IMAGE, (4, 4)), (Presentation.IMAGE, (1, 4, 4, 4)), (Presentation.PSEUDO3D, (16, 4, 4)), (None, (4, 4, 4))],
)
def test_a_sample_of_the_wrong_rank_is_refused(presentation, shape):
    """Axes are (C, H, W) or (C, D, H, W) everywhere; a lost channel axis would be read as a short volume."""
    with pytest.raises(GeometryError, match=r"\(C, (D, )?H, W\); found shape"):
        sample(np.zeros(shape, np.int16), presentation)


def test_spacing_has_one_number_for_each_spatial_axis():
    """A missing number would shift spacing along the axes."""
    with pytest.raises(GeometryError, match="spacing_mm"):
        sample(np.zeros((1, 4, 4, 4), np.int16), Presentation.SUPERPATCH, spacing_mm=(1.0, 1.0))


# ---- names ----


def test_a_key_follows_content_and_part_and_nothing_else():
    """Golden: computed once with coreutils sha256sum; a change would rename every sample of every dataset."""
    assert sample_key("ab" * 32, "frame=3") == "c5736bd6e396f18b4c5cd320ce3ac344"
    assert sample_key("ab" * 32, "frame=3") != sample_key("ab" * 32, "frame=4")


def test_equal_documents_are_equal_bytes():
    """Digests are compared between machines, so order of keys and spelling of text must not matter."""
    assert canonical_json({"b": [1.0, None], "a": "ß"}) == '{"a":"ß","b":[1.0,null]}'.encode()
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_json_does_not_know_are_refused(value):
    """NaN is not equal to itself, so no digest of it could be checked."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        canonical_json({"a": value})


# ---- vocabulary ----


def test_words_for_modalities_are_lower_case_and_hold_no_contradiction():
    """Folder names are compared in lower case; a word must not hide one of DICOM's own terms."""
    assert all(word == word.lower() for word in MODALITY_WORDS)
    assert all(MODALITY_WORDS[m.value.lower()] is m for m in Modality)
    assert (MODALITY_WORDS["dx"], MODALITY_WORDS["mri"], MODALITY_WORDS["histology"]) == (Modality.XR, Modality.MR, Modality.SM)


def test_only_superpatches_were_never_flat():
    """Methods decide by this which samples may be folded to an image."""
    assert [p for p in Presentation if not p.is_2d] == [Presentation.SUPERPATCH]


def test_stored_words_do_not_change():
    """These strings stand in published catalogs; renaming one breaks every dataset."""
    assert [str(p) for p in Presentation] == ["image", "pseudo3d", "superpatch"]
    assert [str(e) for e in Encoding] == ["npy", "zarr-chunk"]
    assert [str(s) for s in Split] == ["train", "test"]
    assert {"pkl", "pickle", "pt", "pth", "npz"} <= REFUSED_SUFFIXES
