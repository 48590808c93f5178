"""Demonstration on sample images: prepare, verify, pretrain, kill, resume, evaluate.

Each step is a command that a user could type; it is printed before it runs. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from crossdim.foundation.entry_point import DONE, QUARANTINED
from demo.images import write_sample_images
from demo.learned import describe_learned
from demo.phantoms import write_phantoms
from demo.radiographs import write_radiographs

#: Found on the validation split of PneumoniaMNIST, which the demo does not carry: training/recipes/LOG.md.
STEPS = 240
SETTINGS = ("--set", "optimizer.lr=0.003")
#: With ``--quick``: the same commands on less, too little to learn from.
QUICK_STEPS = 60
QUICK_RADIOGRAPHS = 80
KILLED_AT = 34
#: A run writes its progress every two seconds, about ten steps: on any machine this is the checkpoint before the kill.
SAVED_AT = 30
#: Name of the dataset that the run is evaluated with and not trained on.
HELD_OUT = "demo-radiographs"
#: Of one command.
TIMEOUT_S = 600


def say(text: str) -> None:
    """Print a heading."""
    sys.stdout.write(f"\n\033[1m{text}\033[0m\n" if sys.stdout.isatty() else f"\n{text}\n")
    sys.stdout.flush()


def crossdim(*arguments: str) -> subprocess.Popen[bytes]:
    """Start a command as a user would, in its own process group."""
    say("$ crossdim " + shlex.join(arguments))
    return subprocess.Popen([sys.executable, "-m", "crossdim", *arguments], start_new_session=True)


def wait_for(process: subprocess.Popen[bytes], *, accepted: tuple[int, ...] = (DONE,)) -> None:
    """Wait for a command; if it fails, exit with its exit code."""
    try:
        code = process.wait(TIMEOUT_S)
    except (subprocess.TimeoutExpired, KeyboardInterrupt) as error:
        os.killpg(process.pid, signal.SIGKILL)
        sys.exit(f"the demo was stopped: {error or 'interrupted'}")
    if code not in accepted:
        sys.exit(code)


def kill_at(process: subprocess.Popen[bytes], run: Path, step: int) -> None:
    """Kill a run and all processes that it started with signal 9 once it has completed ``step`` steps."""
    progress = run / "progress.json"
    begun = time.monotonic()
    while not (progress.exists() and json.loads(progress.read_text())["step"] >= step):
        if process.poll() is not None:
            sys.exit(f"the run ended with code {process.returncode} before step {step}")
        if time.monotonic() - begun > TIMEOUT_S:
            os.killpg(process.pid, signal.SIGKILL)
            sys.exit(f"the run did not reach step {step} within {TIMEOUT_S} s")
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    say(f"killed with signal 9 after step {step}; the same command continues from the last checkpoint")


def write_inputs(raw: Path, radiographs: int | None) -> None:
    """Write the raw input: radiographs, images that installed packages carry, and phantoms with known classes."""
    say("1. raw images and volumes: chest radiographs, samples that installed packages carry, and phantoms")
    chest = write_radiographs(raw / "radiographs", most=radiographs)
    samples = write_sample_images(raw)
    phantoms = write_phantoms(raw / "phantoms", seed=0, images_per_label=0)
    say(f"{chest} radiographs of PneumoniaMNIST (demo/RADIOGRAPHS.md), {samples} samples and {phantoms} phantoms in {raw}")


def prepare(out: Path) -> tuple[str, str, str]:
    """Prepare and verify the three datasets.

    Returns:
        Images and volumes to pretrain on, and radiographs to evaluate with.
    """
    raw, images, volumes, held_out = (str(out / name) for name in ("raw", "images", "volumes", "radiographs"))
    say("2. prepare: images become pseudo-3D, volumes become superpatches; bad files are quarantined with a reason")
    flat, solid = (("--recipe", name, "--label", "folder") for name in ("xray-pseudo3d:tiny", "mixed-superpatches:tiny"))
    for line in (
        (f"{raw}/images2d", f"{raw}/radiographs/train", *flat, "--out", images, "--name", "demo-images"),
        (f"{raw}/volumes", f"{raw}/phantoms/ct", *solid, "--out", volumes, "--name", "demo-volumes"),
        (f"{raw}/radiographs/test", *flat, "--out", held_out, "--name", HELD_OUT),
    ):
        wait_for(crossdim("prepare", *line), accepted=(DONE, QUARANTINED))
    for dataset in (images, volumes, held_out):
        wait_for(crossdim("verify", dataset))
    return images, volumes, held_out


def run_demo(out: Path, *, steps: int, radiographs: int | None) -> None:
    """Run all steps of the demo.

    Args:
        out: folder of the demo.
        steps: of the pretraining.
        radiographs: of each split; None for all.
    """
    begun = time.monotonic()
    run = out / "run"
    write_inputs(out / "raw", radiographs)
    images, volumes, held_out = prepare(out)
    say(f"3. pretrain: CDSSL-P3D on both at once through Ray Train, without labels, killed at step {KILLED_AT} and resumed")
    where = ("--data", images, volumes, "--out", str(run))
    numbers = ("--steps", str(steps), "--checkpoint-every", str(SAVED_AT))
    line = ("pretrain", "--recipe", "cdssl-p3d:tiny", *where, *numbers, *SETTINGS)
    kill_at(crossdim(*line), run, KILLED_AT)
    wait_for(crossdim(*line))
    say("4. evaluate: the frozen encoder against untrained networks, on radiographs that it has not seen and on the volumes")
    wait_for(crossdim("evaluate", str(run), "--data", held_out, volumes))
    say(f"done in {time.monotonic() - begun:.0f} s\n{describe_learned(run, HELD_OUT)}")
    page = shlex.join(("crossdim", "show", str(run), "--serve"))
    say(f"Open {run / 'report.html'}, or let {page} open it")


def main() -> None:
    """Run the demo in a fresh folder."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="folder of the demo; emptied first")
    parser.add_argument("--quick", action="store_true", help="less data and fewer steps, too few to learn from: for tests")
    arguments = parser.parse_args()
    out: Path = arguments.out.absolute()
    shutil.rmtree(out, ignore_errors=True)
    if arguments.quick:
        run_demo(out, steps=QUICK_STEPS, radiographs=QUICK_RADIOGRAPHS)
    else:
        run_demo(out, steps=STEPS, radiographs=None)


if __name__ == "__main__":
    main()
