"""What ``auto`` becomes on kinds of devices: NVIDIA has bfloat16 since Ampere (8.0), and Triton code since Volta (7.0)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from crossdim.training.config.device_choice import (
    CPU,
    Device,
    choose_execution,
    describe_choice,
    describe_kept,
    keep_recorded,
)
from crossdim.training.config.execution import Execution

P100 = Device(name="Tesla P100", bf16=False, compiles=False)
T4 = Device(name="Tesla T4", bf16=False, compiles=True)
H100 = Device(name="NVIDIA H100 80GB HBM3", bf16=True, compiles=True)
A100_WITHOUT_COMPILER = Device(name="NVIDIA A100", bf16=True, compiles=False)


@pytest.mark.parametrize(
    ("devices", "precision", "compiled"),
    [
        ((CPU,), "fp32", False),
        ((P100,), "fp32", False),
        ((T4,), "fp32", True),
        ((H100,), "bf16", True),
        ((A100_WITHOUT_COMPILER,), "bf16", False),
        ((H100, T4), "fp32", True),
        ((H100, A100_WITHOUT_COMPILER), "bf16", False),
        ((), "fp32", False),
    ],
)
def test_auto_is_what_every_device_can_do(devices: tuple[Device, ...], precision: str, compiled: bool) -> None:
    chosen = choose_execution(Execution(), devices)
    assert (chosen.precision, chosen.compiled) == (precision, compiled)
    assert replace(chosen, precision="auto", compiled="auto") == Execution()


@pytest.mark.parametrize(
    "asked",
    [Execution(precision="tf32", compiled=False), Execution(precision="fp32", compiled=True), Execution(precision="bf16")],
)
def test_what_is_set_stays_on_every_device(asked: Execution) -> None:
    for devices in ((CPU,), (H100,), ()):
        chosen = choose_execution(asked, devices)
        assert chosen.precision == asked.precision
        assert asked.compiled == "auto" or chosen.compiled == asked.compiled


def test_sharded_and_recomputing_networks_are_compiled_only_when_asked() -> None:
    for asked in (Execution(sharded=True), Execution(recompute=True)):
        assert choose_execution(asked, (H100,)).compiled is False
        assert choose_execution(replace(asked, compiled=True), (H100,)).compiled is True


@pytest.mark.parametrize(("precision", "compiled"), [("bf16", True), ("fp32", False), ("tf32", True)])
@pytest.mark.parametrize("devices", [(CPU,), (H100,), ()])
def test_a_resume_keeps_what_was_recorded_on_every_device(precision: str, compiled: bool, devices: tuple[Device, ...]) -> None:
    kept = keep_recorded(Execution(), {"precision": precision, "compiled": compiled, "accumulate": 4})
    chosen = choose_execution(kept, devices)
    assert (chosen.precision, chosen.compiled, chosen.accumulate) == (precision, compiled, 1)


def test_what_is_asked_for_is_not_replaced_by_what_was_recorded() -> None:
    """The identity of the run then differs, and that is refused elsewhere."""
    kept = keep_recorded(Execution(precision="fp32"), {"precision": "bf16", "compiled": True})
    assert (kept.precision, kept.compiled) == ("fp32", True)


def test_the_choice_is_told_with_its_device_and_how_to_change_it() -> None:
    asked = Execution()
    on_gpu = describe_choice(asked, choose_execution(asked, (H100,)), (H100,))
    assert on_gpu == (
        "precision bf16, compiled: chosen for NVIDIA H100 80GB HBM3; "
        "to change it: --set compute.precision=fp32, --set compute.compiled=false"
    )
    on_cpu = describe_choice(asked, choose_execution(asked, (CPU,)), (CPU,))
    assert on_cpu == "precision fp32, not compiled: chosen for the CPU; with --gpu a GPU chooses"
    assert "GPUs that could not be asked" in describe_choice(asked, choose_execution(asked, ()), ())
    settled = Execution(precision="fp32", compiled=False)
    assert describe_choice(settled, settled, (H100,)) == ""


def test_a_resume_tells_what_it_keeps_only_where_its_device_would_choose_otherwise() -> None:
    of_cpu, of_gpu = choose_execution(Execution(), (CPU,)), choose_execution(Execution(), (H100,))
    assert describe_kept(of_cpu, (H100,)) == (
        "precision fp32, not compiled: as the run was started; "
        "NVIDIA H100 80GB HBM3 would choose precision bf16, compiled for a new one"
    )
    assert [describe_kept(of_cpu, (CPU,)), describe_kept(of_gpu, (H100,)), describe_kept(of_cpu, ())] == ["", "", ""]
