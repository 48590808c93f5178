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
from demo.phantoms import write_phantoms

STEPS = 60
KILLED_AT = 34
#: A run writes its progress every two seconds, about ten steps: on any machine this is the checkpoint before the kill.
SAVED_AT = 30
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


def write_inputs(raw: Path) -> None:
    """Write the raw input: real images that installed packages carry, and phantoms with known classes."""
    say("1. raw images and volumes: samples that installed packages carry, and phantoms")
    samples = write_sample_images(raw)
    phantoms = write_phantoms(raw / "phantoms", seed=0)
    say(f"{samples} real files and {phantoms} phantoms in {raw}")


def run_demo(out: Path) -> None:
    """Run all steps."""
    begun = time.monotonic()
    raw, images, volumes, run = out / "raw", str(out / "images"), str(out / "volumes"), out / "run"
    write_inputs(raw)
    say("2. prepare: images become pseudo-3D, volumes become superpatches; bad files are quarantined with a reason")
    flat = ("prepare", f"{raw}/images2d", f"{raw}/phantoms/xray", "--recipe", "xray-pseudo3d:tiny", "--label", "folder")
    solid = ("prepare", f"{raw}/volumes", f"{raw}/phantoms/ct", "--recipe", "mixed-superpatches:tiny", "--label", "folder")
    wait_for(crossdim(*flat, "--out", images, "--name", "demo-images"), accepted=(DONE, QUARANTINED))
    wait_for(crossdim(*solid, "--out", volumes, "--name", "demo-volumes"), accepted=(DONE, QUARANTINED))
    for dataset in (images, volumes):
        wait_for(crossdim("verify", dataset))
    say(f"3. pretrain: CDSSL-P3D on both at once through Ray Train, killed at step {KILLED_AT} and resumed")
    where = ("--data", images, volumes, "--out", str(run))
    line = ("pretrain", "--recipe", "cdssl-p3d:tiny", *where, "--steps", str(STEPS), "--checkpoint-every", str(SAVED_AT))
    kill_at(crossdim(*line), run, KILLED_AT)
    wait_for(crossdim(*line))
    say("4. evaluate: the frozen encoder against untrained networks")
    wait_for(crossdim("evaluate", str(run), "--data", images, volumes))
    say(f"done in {time.monotonic() - begun:.0f} s. Open {run / 'report.html'}")


def main() -> None:
    """Run the demo in a fresh folder."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__, allow_abbrev=False)
    parser.add_argument("--out", type=Path, default=Path("demo-out"), help="folder of the demo; emptied first")
    out: Path = parser.parse_args().out.absolute()
    shutil.rmtree(out, ignore_errors=True)
    run_demo(out)


if __name__ == "__main__":
    main()
