"""Configurations as text: what is written is read back, every fault is listed, and overrides take the type of their field."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crossdim.foundation.settings import from_document, override_settings, to_document
from crossdim.storage_schema.errors import DocumentError, UsageError


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, kw_only=True, slots=True)
class Inner:
    side: int = 128
    rate: float = 1e-3
    edge: Literal["pad", "drop"] = "pad"


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """A family: what a run trains is one of its members."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Masked(Method):
    kind: ClassVar[str] = "masked"
    ratio: float = 0.75


@dataclass(frozen=True, kw_only=True, slots=True)
class Contrast(Method):
    kind: ClassVar[str] = "contrast"
    views: int = 2
    inner: Inner = Inner()


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    name: str
    inner: Inner = Inner()
    method: Method = Masked()
    spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0)
    names: tuple[str, ...] = ()
    colour: Colour = Colour.RED
    limit: int | None = None
    flag: bool = False
    extra: dict[str, object] = field(default_factory=dict)


FAMILIES = {Method: {"masked": Masked, "contrast": Contrast}}
RATES = st.floats(allow_nan=False, allow_infinity=False)
INNERS = st.builds(Inner, side=st.integers(), rate=RATES, edge=st.sampled_from(["pad", "drop"]))
RECIPES = st.builds(
    Recipe,
    name=st.text(),
    inner=INNERS,
    method=st.builds(Masked, ratio=RATES) | st.builds(Contrast, views=st.integers(), inner=INNERS),
    spacing_mm=st.tuples(RATES, RATES, RATES),
    names=st.lists(st.text()).map(tuple),
    colour=st.sampled_from(Colour),
    limit=st.none() | st.integers(),
    flag=st.booleans(),
)


def read(document: object) -> Recipe:
    return from_document(Recipe, document, subject="recipe.json", families=FAMILIES)


def problems(document: object) -> dict[str, str]:
    with pytest.raises(DocumentError) as caught:
        read(document)
    return {p.loc: p.message for p in caught.value.problems}


def override(*texts: str) -> Recipe:
    return override_settings(Recipe(name="a"), texts, FAMILIES)


@given(RECIPES)
def test_a_configuration_survives_json(recipe):
    """A checkpoint stores its configuration as a document; a resumed run must be the same run."""
    assert read(json.loads(json.dumps(to_document(recipe)))) == recipe


def test_a_member_of_a_family_carries_its_name():
    """Otherwise two methods with equal settings would be the same document."""
    assert to_document(Recipe(name="a", method=Masked()))["method"] == {"kind": "masked", "ratio": 0.75}


def test_all_faults_are_listed_at_once():
    """Names that do not exist, names that are missing and values of the wrong type, at any depth, in one answer."""
    found = problems(
        {
            "inner": {"sidee": 1, "rate": "fast", "edge": "wrap"},
            "method": {"kind": "contrast", "views": 2.5},
            "spacing_mm": [1.0, 2.0],
            "names": ["a", 1],
            "colour": "green",
            "limit": "none",
            "flag": 1,
            "nmae": "x",
        }
    )

    inside = {"inner.sidee", "inner.rate", "inner.edge", "method.views", "names[1]"}
    assert set(found) == inside | {"name", "nmae", "spacing_mm", "colour", "limit", "flag"}
    assert found["name"] == "is missing"
    assert "did you mean name" in found["nmae"]
    assert "did you mean side" in found["inner.sidee"]
    assert found["inner.edge"] == "found 'wrap'; expected 'pad' or 'drop'"


def test_an_unknown_member_of_a_family_is_answered_with_the_nearest():
    """Recipes from outside of the tree name methods by word."""
    assert "did you mean masked" in problems({"name": "a", "method": {"kind": "maskd"}})["method.kind"]


@pytest.mark.parametrize("document", [None, [], "text", 3])
def test_a_document_that_is_no_object_is_refused(document):
    """Somebody passed the wrong file."""
    assert problems(document)["document"] == f"found {document!r}; expected an object"


def test_a_document_of_another_kind_is_refused():
    """Reading a contrast document as a masked method would train with every default."""
    with pytest.raises(DocumentError, match="kind: found 'contrast'; expected 'masked'"):
        from_document(Masked, {"kind": "contrast"}, subject="x")
    with pytest.raises(DocumentError, match="unknown setting 'kind'"):
        from_document(Inner, {"kind": "inner"}, subject="x")


def test_whole_numbers_are_fractions_but_not_the_other_way_round():
    """A JSON writer drops ``.0``; rounding a number of voxels would be a silent repair."""
    assert type(read({"name": "a", "inner": {"rate": 1}}).inner.rate) is float
    assert problems({"name": "a", "inner": {"side": 1.5}}) == {"inner.side": "found 1.5; expected int"}
    assert problems({"name": "a", "inner": {"rate": True}}) == {"inner.rate": "found True; expected float"}


# ---- --set path=value ----


def test_overrides_take_the_type_of_their_field():
    """Text from a command line becomes what the field is, or is refused."""
    found = override(
        "inner.side=64", "inner.rate=1e-4", "flag=true", "limit=7", "colour=blue", "spacing_mm=[2, 1, 0.5]", "name=b=c"
    )

    assert found == Recipe(
        name="b=c", inner=Inner(side=64, rate=1e-4), flag=True, limit=7, colour=Colour.BLUE, spacing_mm=(2.0, 1.0, 0.5)
    )
    assert type(found.inner.rate) is float


def test_a_text_field_takes_any_text():
    """A run may be called 7 or null; only its field knows that this is no number."""
    assert [override(f"name={text}").name for text in ("7", "null", "true", "1e-4", "", '"7"')] == [
        "7",
        "null",
        "true",
        "1e-4",
        "",
        "7",
    ]


def test_an_optional_field_can_be_emptied():
    """``null`` is how JSON says it."""
    assert override_settings(Recipe(name="a", limit=3), ["limit=null"]).limit is None


def test_later_overrides_win_and_reach_into_families():
    """As with every command line."""
    assert override("method.ratio=0.5", "method.ratio=0.6").method == Masked(ratio=0.6)
    assert override('method={"kind":"contrast"}', "method.views=4").method == Contrast(views=4)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("inner.sied=1", "did you mean side"),
        ("iner.side=1", "did you mean inner"),
        ("name.length=1", "length has no settings"),
        ("inner.side=big", "found 'big'; expected int"),
        ("inner.side=1.0", "found 1.0; expected int"),
        ("inner.side=true", "found True; expected int"),
        ("flag=yes", "found 'yes'; expected bool"),
        ("inner.edge=wrap", "expected 'pad' or 'drop'"),
        ("inner.side", "takes path=value"),
        ("=3", "unknown setting ''"),
        ("inner..side=3", "unknown setting ''"),
    ],
)
def test_an_override_that_fits_nowhere_is_wrong_use(text, answer):
    """Exit code 1, with the nearest names: a misspelt override that is ignored costs a day of training."""
    with pytest.raises(UsageError) as caught:
        override(text)
    assert answer in str(caught.value)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_no_document_can_hold_are_refused(text):
    """The configuration is written into checkpoints and digests as strict JSON; better to say so before the run."""
    with pytest.raises(UsageError, match="expected a finite number"):
        override(f"inner.rate={text}")
