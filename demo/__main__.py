"""Demonstration on sample images: prepare, verify, pretrain, kill, resume, evaluate, and what was learned.

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
from demo.phantoms import VOLUME_LABELS, write_phantoms
from demo.radiographs import LABELS, write_radiographs

#: Of the run without labels and of the run from labels. Methods, settings and steps were chosen on the validation split of
#: PneumoniaMNIST, which the demo does not carry: training/recipes/LOG.md.
UNLABELLED_STEPS, LABELLED_STEPS = 60, 300
UNLABELLED = ("--recipe", "cdssl-p3d:tiny")
#: The classes of the radiographs and of the phantom volumes; samples with other labels are left out of the loss.
CLASSES = json.dumps([*LABELS, *VOLUME_LABELS])
LABELLED = ("--recipe", "cross-d-supervised:tiny", "--set", f"method.classes={CLASSES}")
#: With ``--quick``: the same commands on less, too little to learn from.
QUICK_LABELLED_STEPS = 10
QUICK_RADIOGRAPHS = 80
KILLED_AT = 34
#: A run writes its progress every two seconds, about ten steps: on any machine this is the checkpoint before the kill.
SAVED_AT = 30
#: Name of the dataset that runs are evaluated with and not trained on.
HELD_OUT = "demo-radiographs-test"
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
    say(f"killed with signal 9 soon after step {step}; the same command continues from the last checkpoint")


def write_inputs(raw: Path, radiographs: int | None) -> None:
    """Write the raw input: radiographs, images that installed packages carry, and phantoms with known classes."""
    say("1. raw images and volumes: chest radiographs, samples that installed packages carry, and phantoms")
    chest = write_radiographs(raw / "radiographs", most=radiographs)
    samples = write_sample_images(raw)
    phantoms = write_phantoms(raw / "phantoms", seed=0)
    say(f"{chest} radiographs of PneumoniaMNIST (demo/RADIOGRAPHS.md), {samples} samples and {phantoms} phantoms in {raw}")


def prepare(out: Path) -> None:
    """Prepare and verify ``images``, ``volumes``, and radiographs to pretrain on (``radiographs``) and to evaluate with."""
    say("2. prepare: images become pseudo-3D, volumes become superpatches; bad files are quarantined with a reason")
    raw, flat, solid = str(out / "raw"), "xray-pseudo3d:tiny", "mixed-superpatches:tiny"
    datasets = {
        "images": (f"{raw}/images2d", f"{raw}/phantoms/xray", "--recipe", flat),
        "volumes": (f"{raw}/volumes", f"{raw}/phantoms/ct", "--recipe", solid),
        "radiographs": (f"{raw}/radiographs/train", "--recipe", flat),
        "radiographs-test": (f"{raw}/radiographs/test", "--recipe", flat),
    }
    for name, line in datasets.items():
        where = ("--out", str(out / name), "--name", f"demo-{name}", "--label", "folder")
        wait_for(crossdim("prepare", *line, *where), accepted=(DONE, QUARANTINED))
    for name in datasets:
        wait_for(crossdim("verify", str(out / name)))


def pretrain(out: Path, labelled_steps: int) -> None:
    """Train ``run-unlabelled``, which is killed and resumed, and ``run``.

    Args:
        out: folder of the demo.
        labelled_steps: of ``run``.
    """
    images, volumes, chest = (str(out / name) for name in ("images", "volumes", "radiographs"))
    say(f"3. pretrain without labels: CDSSL-P3D on everything, through Ray Train; killed at step {KILLED_AT} and resumed")
    where = ("--data", images, volumes, chest, "--out", str(out / "run-unlabelled"))
    line = ("pretrain", *UNLABELLED, *where, "--steps", str(UNLABELLED_STEPS), "--checkpoint-every", str(SAVED_AT))
    kill_at(crossdim(*line), out / "run-unlabelled", KILLED_AT)
    wait_for(crossdim(*line))
    say("4. pretrain from labels: Cross-D on radiographs and volumes, in one process")
    inputs = ("--data", chest, volumes, "--out", str(out / "run"))
    wait_for(crossdim("pretrain", *LABELLED, *inputs, "--steps", str(labelled_steps), "--workers", "0"))


def run_demo(out: Path, *, labelled_steps: int, radiographs: int | None) -> None:
    """Run all steps of the demo.

    Args:
        out: folder of the demo.
        labelled_steps: of the run from labels.
        radiographs: of each split; None for all.
    """
    begun = time.monotonic()
    run, unlabelled, held_out = out / "run", out / "run-unlabelled", str(out / "radiographs-test")
    write_inputs(out / "raw", radiographs)
    prepare(out)
    pretrain(out, labelled_steps)
    say("5. evaluate: the frozen encoders against untrained networks, on radiographs that they have not seen")
    # Not on the volumes as well: the second encoder has learned their labels.
    for folder in (unlabelled, run):
        wait_for(crossdim("evaluate", str(folder), "--data", held_out))
    say(
        f"done in {time.monotonic() - begun:.0f} s. What was learned:\n"
        f"from labels: {describe_learned(run, HELD_OUT)}\n"
        f"without labels: {describe_learned(unlabelled, HELD_OUT)}"
    )
    program = shlex.join([str(Path(sys.executable).with_name("crossdim")), "show", str(run), "--serve"])
    say(f"Open {run / 'report.html'}, or let this show it in a browser: {program}")


def main() -> None:
    """Run the demo in a fresh folder."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="folder of the demo; emptied first")
    parser.add_argument("--quick", action="store_true", help="less data and fewer steps, too few to learn from: for tests")
    arguments = parser.parse_args()
    out: Path = arguments.out.absolute()
    shutil.rmtree(out, ignore_errors=True)
    if arguments.quick:
        run_demo(out, labelled_steps=QUICK_LABELLED_STEPS, radiographs=QUICK_RADIOGRAPHS)
    else:
        run_demo(out, labelled_steps=LABELLED_STEPS, radiographs=None)


if __name__ == "__main__":
    main()
