"""What ``import crossdim`` promises: its names, their signatures, and that it costs nothing until a name is used."""

from __future__ import annotations

import inspect
import subprocess
import sys
import time
from pathlib import Path

import pytest

import crossdim
from crossdim import cli
from tests.system.test_extras import WITHOUT

ROOT = Path(cli.__file__).parents[1]
LOADER = (
    "(self, batch_size: 'int', crop: 'tuple[int, ...] | None' = None, transform: 'Transform | None' = None, "
    "shuffle: 'bool' = True, seed: 'int' = 0, threads: 'int' = 4, rank: 'int' = 0, world: 'int' = 1, "
    "drop_last: 'bool' = False) -> 'Loader'"
)
#: Written down: a change that breaks somebody's script is seen here first.
SIGNATURES = {
    "open": "(url: 'str | PathLike[str]', split: \"Literal['train', 'test'] | None\" = 'train', *, "
    "version: 'int | None' = None, **store_options: 'Any') -> 'Dataset'",
    "mix": "(weights: 'Mapping[Dataset, float]') -> 'Mix'",
    "collate": "(samples: 'Sequence[Mapping[str, Any]]') -> 'dict[str, Any]'",
    "load_encoder": "(url: 'str | PathLike[str]', **store_options: 'Any') -> 'Encoder'",
    "convert": "(model_2d: 'nn.Module', *, to: 'Target', mode: 'Mode' = 'centered', inflation: 'Inflation' = 'i3d') "
    "-> 'nn.Module'",
    "unroll": "(image: 'Any', geometry: 'Pseudo3D' = {default}) -> 'Any'",
    "fold": "(volume: 'Any', height: 'int', width: 'int', geometry: 'Pseudo3D' = {default}, *, uncovered: 'float | None' = None) "
    "-> 'Any'",
    "Pseudo3D": "(*, window: 'int' = 4, stride: 'int' = 4, padding: 'int' = 0, layout: 'Layout' = 'offset', "
    "depth_order: 'DepthOrder' = 'row_major', channel_mode: 'ChannelMode' = 'gray', allow_crop: 'bool' = False) -> None",
    "CrossDConv": "(in_channels: 'int', out_channels: 'int', kernel_size: 'int | tuple[int, ...]', *, "
    "stride: 'int | tuple[int, ...]' = 1, padding: 'int | tuple[int, ...]' = 0, dilation: 'int | tuple[int, ...]' = 1, "
    "groups: 'int' = 1, bias: 'bool' = True, padding_mode: 'PaddingMode' = 'zeros', mode: 'Mode' = 'centered', "
    "form: 'Form' = 'auto') -> 'None'",
}
METHODS = {
    "Dataset.loader": LOADER,
    "Mix.loader": LOADER,
    "Encoder.embed": "(self, data: 'Any', *, axes: 'Axes | None' = None) -> 'Tensor'",
    "Encoder.prepare": "(self, data: 'Any', *, axes: 'Axes | None' = None) -> 'Tensor'",
    "Encoder.to": "(self, device: 'torch.device | str') -> 'Encoder'",
    "Loader.state_dict": "(self) -> 'dict[str, Any]'",
    "Loader.load_state_dict": "(self, state: 'Mapping[str, Any]') -> 'None'",
    "Loader.set_epoch": "(self, epoch: 'int') -> 'None'",
    "DatasetSample.unit": "(self) -> 'npt.NDArray[np.float32]'",
    "DatasetSample.physical": "(self) -> 'npt.NDArray[np.float32]'",
}
ATTRIBUTES = {
    "Dataset": {"name", "url", "split", "presentation", "pseudo3d", "table", "identity", "shapes", "loader"},
    "Loader": {"position", "set_epoch", "state_dict", "load_state_dict"},
    "Mix": {"loader"},
    "Encoder": {"embed", "prepare", "to", "device", "num_features"},
    "DatasetSample": {"unit", "physical", "keys", "values", "items", "get"},
}


def python(code: str, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_names_are_these() -> None:
    assert sorted(crossdim.__all__) == [
        *("ACSConv", "Conv25D", "CrossDConv", "CrossdimError", "Dataset", "DatasetSample", "Encoder", "Loader", "MeanACSConv"),
        *("Mix", "Pseudo3D", "SoftACSConv", "collate", "convert", "fold", "inflate_kernel", "load_encoder", "load_extension"),
        *("mix", "open", "unroll"),
    ]
    assert set(crossdim.__all__) <= set(dir(crossdim))
    assert all(getattr(crossdim, name).__doc__ for name in crossdim.__all__)


def test_the_table_of_names_is_what_type_checkers_see() -> None:
    """A name that one of them lacks exists for users of half of the tools only."""
    stubs = (ROOT / "crossdim/__init__.py").read_text().split("if TYPE_CHECKING:\n")[1].split("\n\n")[0]
    seen: dict[str, tuple[str, str]] = {}
    for line in stubs.splitlines():
        module, _, names = line.strip().removeprefix("from ").partition(" import ")
        for name in names.split(", "):
            real, _, public = name.partition(" as ")
            seen[public or real] = (module, real)
    assert seen == crossdim._PUBLIC
    assert set(crossdim.__all__) == set(crossdim._PUBLIC)


@pytest.mark.parametrize("name", SIGNATURES)
def test_signatures_of_functions_and_classes(name: str) -> None:
    assert str(inspect.signature(getattr(crossdim, name))) == SIGNATURES[name].format(default=crossdim.Pseudo3D())


@pytest.mark.parametrize("name", METHODS)
def test_signatures_of_methods(name: str) -> None:
    kind, _, method = name.partition(".")
    assert str(inspect.signature(getattr(getattr(crossdim, kind), method))) == METHODS[name]


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_attributes_of_classes(name: str) -> None:
    own = {key for key in dir(getattr(crossdim, name)) if not key.startswith("_")}
    assert own - {"register_datapipe_as_function", "register_function", "functions"} == ATTRIBUTES[name]


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'opne'"):
        crossdim.opne  # noqa: B018
    assert not hasattr(crossdim, "datasets")


def test_import_is_quick_and_imports_nothing_else() -> None:
    """0.2 s are promised; it takes about 0.01."""
    heavy = ("torch", "ray", "numpy", "pyarrow", "fsspec", "pandas")
    code = f"""
import sys, time
begun = time.perf_counter()
import crossdim
print(time.perf_counter() - begun < 0.2, [name for name in {heavy} if name in sys.modules])
crossdim.Pseudo3D, crossdim.CrossdimError, crossdim.Dataset
print([name for name in ("torch", "ray") if name in sys.modules])
"""
    best = min(_seconds("import crossdim") - _seconds("pass") for _ in range(3))
    assert best < 0.2
    assert python(code).split("\n")[:2] == ["True []", "[]"]


def _seconds(code: str) -> float:
    begun = time.perf_counter()
    python(code)
    return time.perf_counter() - begun


def test_a_name_says_which_extra_it_needs() -> None:
    """Datasets open without torch; batches of tensors need it."""
    code = WITHOUT.partition("from crossdim import cli")[0] + (
        "import crossdim\ncrossdim.open, crossdim.unroll\n"
        "try:\n    crossdim.load_encoder\nexcept crossdim.CrossdimError as error:\n    print(error)"
    )
    assert python(code, "torch") == "crossdim.load_encoder needs PyTorch: pip install 'crossdim[train]'\n"
