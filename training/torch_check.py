"""The check of PyTorch: its version, and whether it computes here, on the processor or a GPU.

A process apart imports it: that takes seconds, and a build that does not fit the machine or its driver may end the process.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from crossdim.foundation.checks import CheckResult, Level
from crossdim.foundation.extras import is_found

#: What the process runs. A sum on the device finds builds that have no code for this GPU. Without searches for garbage and the
#: unloading of torch it takes two thirds of the time; what the process holds goes with it.
SCRIPT = """
import gc
gc.disable()
import json, os, torch
found = {"version": torch.__version__, "cuda": torch.version.cuda, "gpus": []}
assert torch.ones(8).sum() == 8
if torch.cuda.is_available():
    for number in range(torch.cuda.device_count()):
        assert torch.ones(8, device=f"cuda:{number}").sum() == 8
        found["gpus"].append([torch.cuda.get_device_name(number), torch.cuda.mem_get_info(number)[1]])
print(json.dumps(found), flush=True)
os._exit(0)
"""
#: On a cold disk the import alone may take a minute.
PATIENCE_S = 120.0
#: Files of the driver of Nvidia: a GPU is there, whatever torch says.
DRIVER = Path("/proc/driver/nvidia/version")
INSTALL = "pip install 'crossdim[train]'"


def check_torch() -> list[CheckResult]:
    """Check the version of PyTorch, and that it computes on the processor and on each GPU."""
    if not is_found("torch"):
        missing = "not installed; pretrain, evaluate and study need it"
        return [CheckResult(check="PyTorch", level=Level.WARNING, found=missing, remedy=INSTALL)]
    line = [sys.executable, "-c", SCRIPT]
    try:
        done = subprocess.run(line, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    except subprocess.TimeoutExpired:
        return [_fail(f"is not imported within {PATIENCE_S:.0f} s")]
    if done.returncode != 0:
        said = done.stderr.strip().splitlines()[-1:] or [f"its process ends with {done.returncode}"]
        return [_fail(f"does not compute here: {said[0]}")]
    return _describe(json.loads(done.stdout.splitlines()[-1]))


def _fail(found: str) -> CheckResult:
    builds = "take the build for this machine from https://pytorch.org/get-started/locally, for processors"
    remedy = f"{builds}: pip install --force-reinstall torch --index-url https://download.pytorch.org/whl/cpu"
    return CheckResult(check="PyTorch", level=Level.FAILURE, found=found, remedy=remedy)


def _describe(found: dict[str, object]) -> list[CheckResult]:
    build = f"for CUDA {found['cuda']}" if found["cuda"] else "for processors"
    version = CheckResult(check="PyTorch", found=f"{found['version']}, built {build}")
    gpus = found["gpus"]
    if not isinstance(gpus, list) or not gpus:
        return [version, _describe_no_gpu(str(found["cuda"] or ""))]
    kinds = ", ".join(f"{kind} ({total / 2**30:.0f} GiB)" for kind, total in gpus)
    return [version, CheckResult(check="GPU", found=f"{len(gpus)}: {kinds}")]


def _describe_no_gpu(cuda: str) -> CheckResult:
    if not DRIVER.exists():
        return CheckResult(check="GPU", found="none; training uses the processor, and --gpu is refused")
    found = "an Nvidia driver runs here, but this PyTorch finds no GPU"
    remedy = "take a build for its CUDA version from https://pytorch.org/get-started/locally; the version is told by: nvidia-smi"
    if cuda:
        remedy = (
            f"update the driver to one that knows CUDA {cuda}, and unset CUDA_VISIBLE_DEVICES if it is empty; look at: nvidia-smi"
        )
    return CheckResult(check="GPU", level=Level.WARNING, found=found, remedy=remedy)
