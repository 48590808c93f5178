"""What is read of GPUs, of this machine and of a cluster; what a run records of the choice, and keeps."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from crossdim.cli import main
from crossdim.foundation.bucket import Bucket
from crossdim.foundation.cluster import ray_session
from crossdim.storage_schema.errors import RunError, UsageError
from crossdim.training.config.device_choice import CPU, Device
from crossdim.training.config.pretraining import Pretraining, apply_overrides
from crossdim.training.launch import devices as launch_devices
from crossdim.training.launch.devices import find_devices, list_gpus
from crossdim.training.launch.validate import ValidatedRun, validate_run
from crossdim.training.launch.worker import Source
from crossdim.training.recipes import recipe
from crossdim.training.run_dir.run_config import read_run_config, write_run_config

H100 = Device(name="NVIDIA H100 80GB HBM3", bf16=True, compiles=True)


def _pretend_gpus(monkeypatch: pytest.MonkeyPatch, *gpus: tuple[str, tuple[int, int]], compiler: bool = True) -> None:
    """A machine with these GPUs, as PyTorch would tell of them: bfloat16 from capability 8.0 on."""
    held: list[int] = []

    @contextlib.contextmanager
    def hold(number: int) -> object:  # type: ignore[misc]
        held.append(number)
        yield

    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(gpus))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: gpus[number][0])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda number: gpus[number][1])
    monkeypatch.setattr(torch.cuda, "device", hold)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: gpus[held[-1]][1] >= (8, 0))
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if compiler else None)
    monkeypatch.setattr(launch_devices, "is_found", lambda package: package == "triton")


def test_each_kind_of_gpu_is_listed_once_with_what_it_can_do(monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend_gpus(monkeypatch, ("V100", (7, 0)), ("H100", (9, 0)), ("H100", (9, 0)), ("P100", (6, 0)))
    assert list_gpus() == (
        Device(name="V100", bf16=False, compiles=True),
        Device(name="H100", bf16=True, compiles=True),
        Device(name="P100", bf16=False, compiles=False),
    )
    _pretend_gpus(monkeypatch, ("H100", (9, 0)), compiler=False)
    assert list_gpus() == (Device(name="H100", bf16=True, compiles=False),)


def test_a_run_without_gpus_is_of_the_cpu_whatever_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend_gpus(monkeypatch, ("H100", (9, 0)))
    assert find_devices(None, use_gpu=False, joins=False, needed=True) == (CPU,)
    assert find_devices("10.0.0.1:6379", use_gpu=True, joins=True, needed=False) == ()


@pytest.mark.ray
def test_a_machine_of_a_cluster_that_tells_of_no_gpu_leaves_the_choice_to_what_works_everywhere() -> None:
    """Ray believes in a GPU here, PyTorch finds none."""
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    import ray

    ray.init(num_cpus=1, num_gpus=1, include_dashboard=False)
    try:
        with ray_session(None):
            assert find_devices(None, use_gpu=True, joins=True, needed=True) == ()
    finally:
        ray.shutdown()


def _validate(data: Bucket, run: Bucket, devices: Sequence[Device], *, config: Pretraining | None = None) -> ValidatedRun:
    def find(*, needed: bool) -> Sequence[Device]:
        return devices

    sources = [Source(bucket=data, weight=1.0)]
    use_gpu = devices != (CPU,)
    return validate_run(config or recipe("cdssl-p3d:tiny"), sources, run, 0, use_gpu=use_gpu, find_devices=find)


def test_the_identity_of_a_run_holds_the_choice_and_a_resume_keeps_it(image_data: Bucket, tmp_path: Path) -> None:
    run = Bucket(str(tmp_path / "run"))
    started = _validate(image_data, run, (H100,))
    compute = started.identity["config"]["compute"]
    assert (compute["precision"], compute["compiled"]) == ("bf16", True)
    assert started.choices[0].startswith("precision bf16, compiled: chosen for NVIDIA H100")
    write_run_config(run, started.identity, [image_data.url])
    old_gpu = Device(name="Tesla T4", bf16=False, compiles=True)
    resumed = _validate(image_data, run, (old_gpu,))
    assert resumed.identity == started.identity
    assert resumed.choices[0].startswith("precision bf16, compiled: as the run was started; Tesla T4 would choose precision fp32")
    with pytest.raises(UsageError, match=r"bf16 needs --gpu: .* this run was started with it: go on with --gpu"):
        _validate(image_data, run, (CPU,))


def test_a_run_of_a_cpu_goes_on_as_it_was_on_a_gpu_and_another_setting_is_another_run(image_data: Bucket, tmp_path: Path) -> None:
    run = Bucket(str(tmp_path / "run"))
    started = _validate(image_data, run, (CPU,))
    write_run_config(run, started.identity, [image_data.url])
    resumed = _validate(image_data, run, (H100,))
    assert resumed.identity == started.identity
    assert (resumed.config.compute.precision, resumed.config.compute.compiled) == ("fp32", False)
    asked = apply_overrides(recipe("cdssl-p3d:tiny"), ["compute.precision=tf32"])
    with pytest.raises(RunError, match=r"compute\.precision was fp32 and is tf32"):
        _validate(image_data, run, (H100,), config=asked)


@pytest.mark.integration
def test_a_run_says_at_its_start_what_was_chosen_and_records_it(
    image_data: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["--recipe", "cdssl-p3d:tiny", "--data", image_data.url, "--out", str(tmp_path), "--workers", "0", "--steps", "1"]
    assert main(["pretrain", *line]) == 0
    assert "pretrain: precision fp32, not compiled: chosen for the CPU; with --gpu a GPU chooses\n" in capsys.readouterr().err
    config = read_run_config(Bucket(str(tmp_path)))
    assert (config.identity["config"]["compute"]["precision"], config.identity["config"]["compute"]["compiled"]) == (
        "fp32",
        False,
    )
    assert json.dumps(config.provenance).count("compute") == 0  # no difference from the recipe
