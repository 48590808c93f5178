"""References to functions of other packages: every way in which one can be wrong is told in a sentence."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from crossdim.foundation.references import describe_unknown_recipe, find_function, import_module, is_reference, list_members
from crossdim.storage_schema.errors import UsageError


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a package ``lab_of_references`` with a module ``recipes``; nothing of it is left behind."""
    folder = tmp_path / "lab_of_references"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "recipes.py").write_text("def thing():\n    return 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield folder
    for name in [name for name in sys.modules if name.partition(".")[0] == folder.name]:
        del sys.modules[name]


def test_a_module_that_exists_is_imported(lab: Path) -> None:
    assert is_reference(f"{lab.name}.recipes:thing")
    assert find_function(import_module(f"{lab.name}.recipes"), "thing")() == 1


@pytest.mark.parametrize(
    "name", ["recipes:thing", "nowhere:thing", "recipes.below:thing", "recipes:", "recipes", "re-cipes:thing"]
)
def test_what_leads_to_no_module_is_no_reference(lab: Path, name: str) -> None:
    assert is_reference(f"{lab.name}.{name}") == (name == "recipes:thing")


@pytest.mark.parametrize(
    ("package", "message"),
    [
        ("import a_package_that_is_not_there", "No module named 'a_package_that_is_not_there'"),
        ("import lab_of_references.not_there", "No module named 'lab_of_references.not_there'"),
        ("from lab_of_references import not_there", "cannot import name 'not_there'"),
        ("def (", "invalid syntax"),
    ],
)
@pytest.mark.parametrize("file", ["__init__.py", "recipes.py"])
def test_a_package_that_does_not_import_is_told_apart_from_one_that_is_not_there(
    lab: Path, file: str, package: str, message: str
) -> None:
    (lab / file).write_text(package)
    assert is_reference(f"{lab.name}.recipes:thing")
    with pytest.raises(UsageError, match=rf"the module {lab.name}.recipes cannot be imported: .*{message}"):
        import_module(f"{lab.name}.recipes")


def test_an_unknown_recipe_names_the_module_that_is_not_there() -> None:
    known = ["maesil:tiny", "ae"]
    assert describe_unknown_recipe("my_lab.recipes:ct", known).endswith("module:function, and there is no module my_lab.recipes")
    assert "did you mean maesil:tiny" in describe_unknown_recipe("maesil:tny", known)
    for name in ("maesil", "cross-d:tny", "maesil:"):
        assert describe_unknown_recipe(name, known).endswith("one of your own is module:function")


def test_a_function_that_needs_arguments_is_no_recipe() -> None:
    module = ModuleType("lab")
    vars(module).update(ct=lambda side: side, mr=lambda side=1: side, now=dict)
    with pytest.raises(UsageError, match=r"lab.ct is called without arguments: missing a required argument: 'side'"):
        find_function(module, "ct")
    assert find_function(module, "mr")() == 1
    assert find_function(module, "now")() == {}


def test_a_table_of_a_module_is_a_tuple_or_a_list() -> None:
    module = ModuleType("lab")
    vars(module).update(READERS=[1, 2], STAGES=(3,), METHODS=int)
    assert list_members(module, "READERS") == (1, 2)
    assert list_members(module, "STAGES") == (3,)
    assert list_members(module, "BACKBONES") == ()
    with pytest.raises(UsageError, match=r"lab.METHODS is of type type; expected a tuple or a list: .* METHODS = \(member,\)"):
        list_members(module, "METHODS")
