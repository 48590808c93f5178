"""A method, a backbone, an augmentation and an export of another package, from the command line to the exported program."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import crossdim
from crossdim.cli import main
from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import RunError, UsageError
from crossdim.training import extensions
from crossdim.training.backbones import BACKBONES, load_encoder, serialise_encoder
from crossdim.training.backbones.base import EncoderSpec
from crossdim.training.backbones.unet3d import UNet3DSettings
from crossdim.training.config.pretraining import read_config
from crossdim.training.methods import METHODS
from crossdim.training.methods.image_to_volume import IMAGE_TO_VOLUME
from crossdim.training.recipes import recipe
from crossdim.training.run_dir.layout import CONFIG, ENCODER

OUTSIDE = Path(__file__).parent / "outside"
RECIPE = "net_lab.recipes:slim"
EXTENSION = ("--extension", "net_lab.recipes")


def _forget() -> None:
    """Leave the state of a process that has not imported the package."""
    for table in (METHODS, BACKBONES, IMAGE_TO_VOLUME):
        for kind in [kind for kind, member in table.items() if member.extension]:
            del table[kind]
    extensions._loaded.clear()
    for name in [name for name in sys.modules if name.partition(".")[0] in ("net_lab", "second_lab")]:
        del sys.modules[name]


@pytest.fixture(autouse=True)
def net_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The package ``net_lab`` in a folder of the user's, who starts commands there; nothing of it is left behind."""
    folder = tmp_path / "home"
    shutil.copytree(OUTSIDE, folder)
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    _forget()


def _pretrain(data: Bucket, run: Path, *more: str, workers: int = 0) -> int:
    return main(["pretrain", "--data", data.url, "--out", str(run), "--workers", str(workers), "--json", *more])


@pytest.mark.integration
def test_a_run_of_another_packages_parts_is_resumed_evaluated_and_exported(
    volume_data: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert _pretrain(volume_data, run, "--recipe", RECIPE, "--checkpoint-every", "2", "--steps", "4") == 0
    whole = (run / ENCODER).read_bytes()
    assert json.loads((run / CONFIG).read_text())["identity"]["extensions"] == ["net_lab.recipes"]

    _forget()
    capsys.readouterr()
    assert _pretrain(volume_data, run) == 1
    error = capsys.readouterr().err
    assert "uses net_lab.recipes. No module is imported because a file names it: give --extension net_lab.recipes" in error
    assert "net_lab" not in sys.modules
    assert main(["evaluate", str(run), "--data", volume_data.url]) == 1
    assert "give --extension net_lab.recipes" in capsys.readouterr().err
    shutil.rmtree(run / "checkpoints/step-00000004")
    assert _pretrain(volume_data, run, *EXTENSION) == 0
    assert json.loads(capsys.readouterr().out)["resumed_at"] == 2
    assert (run / ENCODER).read_bytes() == whole
    assert main(["evaluate", str(run), "--data", volume_data.url, "--baselines", "1", "--folds", "2", "--json", *EXTENSION]) == 0

    _forget()
    with pytest.raises(
        RunError, match=r"run/encoder.pt: its backbone 'slim' is of the module net_lab.recipes.*call crossdim.load_extension"
    ):
        crossdim.load_encoder(run)
    assert "net_lab" not in sys.modules
    export = crossdim.load_extension("net_lab.recipes") and __import__("net_lab.export", fromlist=["export"])
    encoder = crossdim.load_encoder(run)
    assert encoder.spec.extension == "net_lab.recipes"
    assert encoder.embed(torch.rand(2, 1, 16, 16, 16)).shape == (2, 8)
    export.export_program(encoder, tmp_path / "encoder.pt2", side=16)
    x = torch.rand(1, 1, 16, 16, 16)
    torch.testing.assert_close(torch.export.load(tmp_path / "encoder.pt2").module()(x), encoder.module(x))


@pytest.mark.integration
def test_a_damaged_configuration_is_rebuilt_with_its_modules(volume_data: Bucket, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert _pretrain(volume_data, run, "--recipe", RECIPE, "--steps", "2") == 0
    sound = (run / CONFIG).read_bytes()
    (run / CONFIG).write_bytes(sound[:-20])
    assert _pretrain(volume_data, run, *EXTENSION) == 0
    assert json.loads((run / CONFIG).read_bytes())["identity"] == json.loads(sound)["identity"]


@pytest.mark.ray
def test_workers_of_ray_import_the_package_too(volume_data: Bucket, tmp_path: Path) -> None:
    """Their losses are those of a run without Ray."""
    runs = [tmp_path / name for name in ("alone", "ray")]
    for run, workers in zip(runs, (0, 1), strict=True):
        assert _pretrain(volume_data, run, "--recipe", RECIPE, "--steps", "2", workers=workers) == 0
    alone, ray = (crossdim.load_encoder(run).module.state_dict() for run in runs)
    for name, weight in alone.items():
        torch.testing.assert_close(ray[name], weight)


def test_parts_of_crossdim_alone_leave_no_module_in_a_run() -> None:
    assert extensions.list_extensions(recipe("net_lab.recipes:plain")) == []
    assert extensions.list_extensions(recipe(RECIPE)) == ["net_lab.recipes"]
    extensions.load_extension("net_lab.recipes")  # again


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("net_lab.recipes:slm", "unknown function of net_lab.recipes 'slm'; did you mean slim"),
        ("net_lab.recipes:no_recipe", "returns str; a recipe is a Pretraining"),
        ("net_lab.nowhere:slim", "unknown recipe.*one of your own is module:function, and there is no module net_lab.nowhere"),
        ("maesil:tny", "did you mean maesil:tiny"),
    ],
)
def test_a_reference_that_leads_nowhere_is_an_error(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        recipe(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "from net_lab.slim import SlimSettings\nclass Ours(SlimSettings):\n    kind = 'unet3d'\nBACKBONES = (Ours,)",
            "kind 'unet3d' of Ours is taken by UNet3DSettings",
        ),
        ("METHODS = ('slim',)", "holds 'slim'; expected dataclasses below MethodConfig"),
        (
            "from net_lab.slim import SlimSettings\nMETHODS = (SlimSettings,)",
            "expected dataclasses below MethodConfig",
        ),
        ("from net_lab.slim import SlimSettings\nBACKBONES = (SlimSettings)", "of type ABCMeta; expected a tuple or a list"),
        ("import a_package_that_is_not_there", "cannot be imported: No module named 'a_package_that_is_not_there'"),
    ],
)
def test_a_module_that_cannot_be_registered_is_an_error(net_lab: Path, text: str, message: str) -> None:
    (net_lab / "second_lab.py").write_text(text)
    with pytest.raises(UsageError, match=message):
        extensions.load_extension("second_lab")


#: A method of ours with a view of the laboratory's, as a setting whose type ours is; and as one of a method of its own.
VIEWS = """
from dataclasses import dataclass, field
from crossdim.training.methods.crossd import CrossD
from crossdim.training.methods.sample_views import SampleViews
from crossdim.training.config.pretraining import Pretraining

@dataclass(frozen=True, kw_only=True, slots=True)
class Mirrored(SampleViews):
    def pair(self, sample, pseudo3d, rng):
        return tuple(view[..., ::-1].copy() for view in SampleViews.pair(self, sample, pseudo3d, rng))

@dataclass(frozen=True, kw_only=True, slots=True)
class MirroredCrossD(CrossD):
    kind = "mirrored-cross-d"
    views: Mirrored = field(default_factory=Mirrored)

METHODS = (MirroredCrossD,)

def own():
    return Pretraining(method=MirroredCrossD(), steps=1, global_batch=8)

def lost():
    return Pretraining(method=CrossD(views=Mirrored()), steps=1, global_batch=8)
"""


def test_a_view_of_another_package_is_a_setting_of_its_method(net_lab: Path) -> None:
    (net_lab / "net_lab/views.py").write_text(VIEWS)
    config = recipe("net_lab.views:own")
    read = read_config(json.loads(json.dumps(config.document())), "test")
    assert read == config
    assert type(read.method.views).__name__ == "Mirrored"  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match=r"lost: method\.views is a Mirrored, and the type of this setting is SampleViews"):
        recipe("net_lab.views:lost")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "from net_lab.recipes import slim",
            "thing: method is a GammaRestoration, which is not registered as 'gamma-restoration'; name it in METHODS",
        ),
        (
            "from net_lab.recipes import slim, METHODS",
            "thing: method.backbone is a SlimSettings, which is not registered as 'slim'; name it in BACKBONES",
        ),
        (
            "from net_lab.recipes import slim, METHODS, BACKBONES\nfrom dataclasses import replace\n"
            "class Ours(type(slim().optimizer)): pass\nold = slim\nslim = lambda: replace(old(), optimizer=Ours())",
            "thing: optimizer is a Ours, which is not registered as 'sgd'; name it in OPTIMIZERS",
        ),
        (
            "from net_lab.recipes import slim, METHODS, BACKBONES\nfrom dataclasses import replace\n"
            "old = slim\nslim = lambda: replace(old(), clip_norm='1')",
            "clip_norm: found '1'; expected float",
        ),
    ],
)
def test_a_recipe_that_workers_would_read_otherwise_is_an_error(
    net_lab: Path, volume_data: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, message: str
) -> None:
    """Before anything is written."""
    (net_lab / "net_lab/wrong.py").write_text(f"{text}\nthing = slim")
    assert _pretrain(volume_data, tmp_path / "run", "--recipe", "net_lab.wrong:thing") == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_modules_of_parts_in_a_tuple_and_of_ways_to_make_volumes_are_found(net_lab: Path) -> None:
    (net_lab / "second_lab.py").write_text(
        "from dataclasses import dataclass\nfrom net_lab.gamma_restoration import GammaRestoration\n"
        "from crossdim.training.backbones.base import BackboneSettings\n"
        "from crossdim.training.methods.image_to_volume import ImageToVolume, Repeated\n"
        "@dataclass(frozen=True, kw_only=True)\nclass Thrice(Repeated):\n    kind = 'thrice'\n    depth: int = 3\n"
        "@dataclass(frozen=True, kw_only=True)\nclass Many(GammaRestoration):\n    kind = 'many'\n"
        "    more: tuple[BackboneSettings, ...] = ()\n    lift: ImageToVolume = Thrice()\n"
        "METHODS = [Many]\nIMAGE_TO_VOLUME = [Thrice]\n"
    )
    slim = recipe(RECIPE)
    second = extensions.load_extension("second_lab")
    method = second.Many(backbone=UNet3DSettings(), more=(slim.method.backbone,))  # type: ignore[attr-defined]
    config = replace(slim, method=method)
    assert extensions.list_extensions(config) == ["net_lab.recipes", "second_lab"]
    assert read_config(config.document(), "test") == config
    assert extensions.list_extensions(replace(config, method=replace(method, more=()))) == ["second_lab"]


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("net_lab.recipes", "'slim' is of the module net_lab.recipes; here 'slim' is second_lab's, and only one of the two"),
        (None, "encoder: unknown backbone 'slim'; did you mean swin3d"),
        ("a b; c", r"call crossdim.load_extension\('a b; c'\), or give --extension 'a b; c'"),
        (3, "extension of another type"),
    ],
)
def test_an_encoder_is_not_built_by_another_packages_backbone_of_the_same_name(
    net_lab: Path, module: str | None, message: str
) -> None:
    """Weights may have the same names and shapes, and features would still be others."""
    settings = recipe(RECIPE).method.backbone  # type: ignore[attr-defined]
    file = serialise_encoder(settings.encoder().state_dict(), replace(EncoderSpec.of(settings), extension=module))
    _forget()
    (net_lab / "second_lab.py").write_text("from net_lab.slim import SlimSettings\nBACKBONES = (SlimSettings,)\n")
    extensions.load_extension("second_lab")
    with pytest.raises(RunError, match=message):
        load_encoder(io.BytesIO(file))
