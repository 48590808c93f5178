"""Public functions state their arguments, results and errors, as those of PyTorch, Ray and pydicom do."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ("storage_schema", "foundation", "pipelines", "training")
SECTION = re.compile(r"^(Args|Returns|Yields|Raises):\n((?:(?: .*)?\n?)*)", re.MULTILINE)
#: An entry of a section: a name, perhaps with the stars of a variable number of arguments, and something about it.
ENTRY = re.compile(r"^\s+\**(\w+): *\S", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Function:
    """A public function or method, without ``self`` or ``cls`` among its parameters."""

    where: str
    node: ast.FunctionDef
    parameters: list[str]

    @property
    def sections(self) -> dict[str, str]:
        """The sections of its docstring by name."""
        return dict(SECTION.findall(ast.get_docstring(self.node) or ""))

    @property
    def faults(self) -> list[str]:
        """What its docstring lacks."""
        stated = ENTRY.findall(self.sections.get("Args", ""))
        faults = [f"argument {name}" for name in self.parameters if name not in stated]
        if ast.unparse(self.node.returns or ast.Constant(None)) not in ("None", "NoReturn"):
            faults += [] if self.sections.keys() & {"Returns", "Yields"} else ["what it returns"]
        if any(isinstance(inner, ast.Raise) for inner in ast.walk(self.node)) and "Raises" not in self.sections:
            faults.append("what it raises")
        return faults


def _functions(path: Path, body: list[ast.stmt], owner: str = "") -> Iterator[Function]:
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from _functions(path, node.body, f"{node.name}.")
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
            if "overload" in decorators:
                continue
            arguments = node.args
            every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
            names = [argument.arg for argument in every if argument is not None]
            is_bound = bool(owner) and "staticmethod" not in decorators
            where = f"{path.relative_to(ROOT)}:{node.lineno} {owner}{node.name}"
            yield Function(where=where, node=node, parameters=names[is_bound:])


def _found(package: str) -> list[Function]:
    modules = (path for path in (ROOT / package).rglob("*.py") if not path.name.startswith("_") or path.name == "__init__.py")
    found = [function for path in sorted(modules) for function in _functions(path, ast.parse(path.read_text()).body)]
    return [function for function in found if len(function.parameters) > 1]


@pytest.mark.parametrize("package", PACKAGES)
def test_functions_of_several_parameters_state_arguments_results_and_errors(package: str) -> None:
    found = _found(package)
    assert len(found) > 20
    assert {function.where: faults for function in found if (faults := function.faults)} == {}


def test_a_missing_argument_result_or_error_is_found() -> None:
    text = '''
def scale(values: list[int], factor: int, *rest: int) -> list[int]:
    """Scale.

    Args:
        values: any.
        factor:
    """
    raise ValueError
'''
    (function,) = _functions(ROOT / "some.py", ast.parse(text).body)
    assert function.faults == ["argument factor", "argument rest", "what it returns", "what it raises"]
