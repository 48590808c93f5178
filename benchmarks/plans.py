"""What ``--plan`` says against what the command then takes: images, volumes and a short pretraining on generated phantoms.

Goal: within 20 percent. Memory is the sum of the most that each process of the command has held; processor time is that of
all of them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from crossdim.foundation.entry_point import DONE, QUARANTINED
from crossdim.foundation.processes import find_descendants
from crossdim.foundation.usage import read_cpu_s, read_peak_bytes
from demo.phantoms import IMAGE_LABELS, phantom_image, write_phantoms

GOAL = 0.2
#: Seconds between looks at the processes of a command.
EVERY_S = 0.02
#: Pixels of phantoms are repeated, and noise added: about as large as small radiographs.
IMAGES_PER_LABEL, REPEAT, VOLUMES_PER_LABEL, STEPS = 400, 6, 200, 150


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What a command printed, and what it took."""

    document: dict[str, Any]
    wall_s: float
    cpu_s: float
    peak_bytes: int


def run(*arguments: str) -> Taken:
    """Run a command with ``--json``, and watch its processes."""
    begun = time.monotonic()
    line = [sys.executable, "-m", "crossdim", *arguments, "--json"]
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    cpu_s: dict[int, float] = {}
    peak_bytes: dict[int, int] = {}
    while process.poll() is None:
        for pid in (process.pid, *find_descendants(process.pid)):
            cpu_s[pid] = max(cpu_s.get(pid, 0.0), read_cpu_s(pid))
            peak_bytes[pid] = max(peak_bytes.get(pid, 0), read_peak_bytes(pid))
        time.sleep(EVERY_S)
    wall_s = time.monotonic() - begun
    assert process.stdout is not None
    if process.returncode not in (DONE, QUARANTINED):
        sys.exit(f"{line} ended with code {process.returncode}")
    found = json.loads(process.stdout.read())
    return Taken(document=found, wall_s=wall_s, cpu_s=sum(cpu_s.values()), peak_bytes=sum(peak_bytes.values()))


def value(plan: Taken, key: str) -> float:
    """A figure of a plan, of its first column."""
    found = plan.document["figures"][key]["value"]
    return float(next(iter(found.values())) if isinstance(found, dict) else found)


def show(job: str, figure: str, planned: float, actual: float, unit: str, scale: float = 1.0) -> None:
    """Print a row of the table."""
    off = planned / actual - 1
    met = "" if abs(off) <= GOAL else " (goal not met)"
    both = [f"{number / scale:,.1f} {unit}" if unit else f"{number:,.0f}" for number in (planned, actual)]
    print(f"| {job} | {figure} | {both[0]} | {both[1]} | {off:+.0%}{met} |", flush=True)


def compare(job: str, plan: Taken, actual: Taken) -> None:
    """Print the rows that every job has."""
    show(job, "wall time", value(plan, "wall_s"), actual.wall_s, "s")
    show(job, "processor time", value(plan, "cpu_hours") * 3600, actual.cpu_s, "s")
    show(job, "peak memory", value(plan, "peak_bytes" if job != "pretrain" else "host_bytes"), actual.peak_bytes, "MB", 1e6)
    print(f"| {job} | the plan itself | {plan.wall_s:.1f} s | | |")


def prepare(job: str, *arguments: str) -> None:
    """Plan a preparation, run it, and print both."""
    plan, actual = run("prepare", *arguments, "--plan"), run("prepare", *arguments)
    sample, kept = plan.document["sample"]["inputs"], plan.document["inputs"]["kept"]
    print(f"| {job} | inputs measured | {sample} of {kept} | | |")
    show(job, "samples", value(plan, "samples"), actual.document["samples"], "")
    show(job, "objects", value(plan, "objects"), actual.document["objects"], "")
    show(job, "output", value(plan, "bytes"), actual.document["bytes"], "MB", 1e6)
    compare(job, plan, actual)


def pretrain(out: Path, *data: str) -> None:
    """Plan a short pretraining, run it, and print both."""
    line = ("--recipe", "cdssl-p3d:tiny", "--data", *data, "--out", str(out), "--workers", "0", "--steps", str(STEPS))
    plan, actual = run("pretrain", *line, "--plan"), run("pretrain", *line)
    stored = sum(path.stat().st_size for path in (*out.glob(f"checkpoints/step-*{STEPS}/state.pt"), out / "encoder.pt"))
    show("pretrain", "checkpoint", value(plan, "checkpoint_bytes"), stored, "MB", 1e6)
    compare("pretrain", plan, actual)


def write_images(folder: Path) -> None:
    """Write enlarged phantoms as PNG files, in folders by label."""
    noise = np.random.default_rng(0).integers(0, 8, (2048, 2048), np.uint8)
    for label in IMAGE_LABELS:
        (folder / label).mkdir(parents=True)
        for number in range(IMAGES_PER_LABEL):
            pixels = phantom_image(0, label, number).pixels_HW.repeat(REPEAT, 0).repeat(REPEAT, 1)
            noisy = np.minimum(pixels, 247) + noise[: pixels.shape[0], : pixels.shape[1]]
            Image.fromarray(noisy).save(folder / label / f"{number:04}.png", compress_level=1)


def main() -> None:
    """Write the inputs, and print the table."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_images(root / "raw/xray")
        write_phantoms(root / "raw", 0, images_per_label=0, volumes_per_label=VOLUMES_PER_LABEL)
        print("| job | figure | plan | actual | off |\n| --- | --- | --- | --- | --- |")
        images, volumes = str(root / "xr"), str(root / "ct")
        flat = ("--recipe", "xray-pseudo3d", "--label", "folder", "--local")
        prepare("images", str(root / "raw/xray"), *flat, "--out", images)
        solid = ("--recipe", "mixed-superpatches", "--label", "folder", "--local")
        prepare("volumes", str(root / "raw/ct"), *solid, "--out", volumes)
        pretrain(root / "run", images, volumes)


if __name__ == "__main__":
    main()
