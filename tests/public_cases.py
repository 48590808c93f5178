"""Inputs after public bug reports, run through the real command: ``python -m tests.public_cases [--write] [NAME ...]``.

The scripts that make the inputs lie beside the repository, in ``../shared/cases``; each says in its first lines how it is run.
All commands run in this process and in one Ray session: a session of its own for each would take most of the time. The table goes
to standard output, or between its marks in ``tests/README.md``.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from crossdim import cli
from crossdim.foundation.cluster import ray_session
from crossdim.pipelines.jobs.rows import decode_row

REPOSITORY = Path(__file__).resolve().parents[1]
CASES = REPOSITORY.parent / "shared" / "cases"
ENDPOINT = "http://127.0.0.1:5611"
BEGIN, END = "<!-- table of cases: python -m tests.public_cases --write -->", "<!-- end of the table of cases -->"
HEAD = ["| case | exit | what comes out |", "| --- | --- | --- |"]


def run_command(line: str, folder: Path) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of one command of a case."""
    words = shlex.split(line)
    changed = dict(word.split("=", 1) for word in words if re.match(r"[A-Z]+=", word))
    words = [word for word in words if not re.match(r"[A-Z]+=", word)]
    if words[0] == "timeout":
        words = words[2:]
    if words[0] != "crossdim":
        done = subprocess.run(line, shell=True, cwd=folder, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr
    out, err = io.StringIO(), io.StringIO()
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = cli.main([*words[1:], *(["--json"] if words[1] in ("prepare", "verify") else [])])
    except SystemExit as ended:
        code = int(ended.code or 0)
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    return code, out.getvalue(), err.getvalue()


def samples_text(out: Path) -> str:
    """The physical values and the labels of what a dataset on this machine holds, in a few words."""
    if not (out / "catalog").is_dir():
        return ""
    ranges: Counter[str] = Counter()
    labels: set[str] = set()
    for part in sorted((out / "catalog").iterdir()):
        for row in pq.read_table(part).to_pylist():
            data = (out / row["object"]).read_bytes()[row["offset"] : row["offset"] + row["length"]]
            physical = decode_row(data, row).astype(np.float64) * row["slope"] + row["intercept"]
            ranges[f"{physical.min():.5g}..{physical.max():.5g}"] += 1
            labels |= {repr(row["label"])} if row["label"] is not None else set()
    message = ", ".join(f"{text} ({count})" if count > 1 else text for text, count in ranges.most_common(4))
    message += f" and {len(ranges) - 4} other ranges" if len(ranges) > 4 else ""
    return f"; values {message}" + (f"; labels {', '.join(sorted(labels))}" if labels else "")


def prepared_text(answer: dict[str, Any]) -> str:
    """What ``prepare`` says, in a few words."""
    files = answer["files"]
    text = f"{answer['samples']} samples; files {files['total']} = {files['used']} + {files['quarantined']} + {files['ignored']}"
    for name in ("quarantined_by_rule", "ignored", "images_not_read"):
        if answer[name]:
            counts = ", ".join(f"`{rule}` {count}" for rule, count in sorted(answer[name].items()))
            text += f"; {name.replace('_by_rule', '').replace('_', ' ')}: {counts}"
    return text


def outcome_of(line: str, folder: Path, out: Path) -> tuple[int, str]:
    """Exit code and outcome of one command."""
    code, stdout, stderr = run_command(line, folder)
    verb = "prepare" if "crossdim prepare" in line else ""
    texts = [text for text in stderr.splitlines() if text.startswith(("labels:", "label maps", "error:", "  "))]
    if "Traceback" in stderr:
        texts.append("TRACEBACK")
    last = stdout.strip().splitlines()[-1:] or [""]
    if verb and code in (0, 3):
        answer = json.loads(last[0])
        notes = [note for note in answer["notes"] if not note.startswith("names are hashed")]
        return code, "; ".join([prepared_text(answer) + samples_text(out), *texts, *notes])
    return code, "; ".join(texts) or " ".join(stdout.split())[-200:]


def cell(text: str, folder: Path) -> str:
    """Text for a cell of the table, without what differs from run to run."""
    text = text.replace(str(folder), "").replace("|", "\\|")
    text = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1", text)
    text = re.sub(r"[0-9a-f]{32,64}", "...", text)
    return " ".join(text.split())[:600]


def run_case(script: Path, folder: Path, store: str) -> Iterator[str]:
    """The rows of one case: one for each line of commands."""
    made, out = folder / "in", folder / "out"
    subprocess.run([sys.executable, str(script), str(made)], check=True, capture_output=True)
    fill_store(made, store)
    runs = re.findall(r"^# run: (.*)$", script.read_text(), re.MULTILINE)
    for number, line in enumerate(runs):
        shutil.rmtree(out, ignore_errors=True)
        line = re.sub(r"\bIN\b", str(made), line)
        line = re.sub(r"\bOUT\b", str(out), line).replace(ENDPOINT, store)
        codes, texts = [], []
        for command in re.split(r"; (?=crossdim|timeout|mv|cp|mkdir|ls|grep|echo)", line):
            code, text = outcome_of(command, folder, out)
            if "crossdim" in command or "ls " in command:
                codes.append(str(code))
                texts.append(text)
        texts += store_text(store) if "s3://" in line else []
        name = f"{script.stem} ({number + 1})" if len(runs) > 1 else script.stem
        yield f"| {name} | {', '.join(codes)} | {cell('; then '.join(texts), folder)} |"


def run_file(file: Path, folder: Path) -> str:
    """The row of one damaged file among good ones."""
    source, volume = folder / "in", file.suffix == ".nii"
    source.mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (64, 64)).astype(np.uint8)
        Image.fromarray(pixels).save(source / f"{number}.png")
    if volume:
        import nibabel

        nibabel.Nifti1Image(np.arange(32**3, dtype=np.int16).reshape(32, 32, 32), np.eye(4)).to_filename(source / "good.nii")
    shutil.copy(file, source)
    recipe = "mixed-superpatches:tiny --set superpatch.min_foreground=0.001" if volume else "xray-pseudo3d:tiny"
    started = time.monotonic()
    code, message = outcome_of(f"crossdim prepare {source} --recipe {recipe} --out {folder / 'out'}", folder, folder / "nothing")
    seconds = time.monotonic() - started
    return f"| files/{file.name} | {code} | {cell(message, folder)}; {'under' if seconds < 60 else 'OVER'} 60 s |"


def client_of(store: str) -> Any:
    """A client of the store that shares no code with the product's."""
    import boto3

    return boto3.client("s3", endpoint_url=store, aws_access_key_id="k", aws_secret_access_key="s", region_name="us-east-1")


def keys_of(client: Any) -> list[str]:
    """Every key of the bucket ``lab``."""
    pages = client.get_paginator("list_objects_v2").paginate(Bucket="lab")
    return [found["Key"] for page in pages for found in page.get("Contents", [])]


def store_text(store: str) -> list[str]:
    """What lies in the store afterwards: objects by folder, and the steps of a run's checkpoints."""
    objects: Counter[str] = Counter()
    steps: dict[str, set[str]] = {}
    for key in keys_of(client_of(store)):
        folder = key.split("/")[0]
        objects[folder] += 1
        if found := re.search(r"/checkpoints/(?:step-)?0*(\d+)", key):
            steps.setdefault(folder, set()).add(found[1])
    return [
        f"{folder}: {count} objects" + (f", checkpoints of steps {', '.join(sorted(steps[folder]))}" if folder in steps else "")
        for folder, count in sorted(objects.items())
    ]


def fill_store(made: Path, store: str) -> None:
    """Make the bucket ``lab`` anew, with the objects that a case names."""
    client = client_of(store)
    with contextlib.suppress(client.exceptions.NoSuchBucket):
        for key in keys_of(client):
            client.delete_object(Bucket="lab", Key=key)
    client.create_bucket(Bucket="lab")
    if (made / "keys.json").is_file():
        for name, key in json.loads((made / "keys.json").read_text()):
            client.put_object(Bucket="lab", Key=key, Body=(made / name).read_bytes())


def table(names: list[str]) -> Iterator[str]:
    """The rows of all cases, or of those named."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    try:
        for script in sorted(CASES.glob("*.py")):
            if not names or script.stem in names:
                with tempfile.TemporaryDirectory(prefix="cases-") as folder:
                    try:
                        yield from run_case(script, Path(folder), f"http://{host}:{port}")
                    except Exception as error:  # the table goes on with the other cases
                        failed = cell(f"this program failed: {type(error).__name__}: {error}", Path(folder))
                        yield f"| {script.stem} | - | {failed} |"
        for file in sorted((CASES / "files").iterdir()):
            if not names or file.name in names:
                with tempfile.TemporaryDirectory(prefix="cases-") as folder:
                    yield run_file(file, Path(folder))
    finally:
        server.stop()


def main() -> None:
    """Run the cases and print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--write", action="store_true", help="put the table into tests/README.md")
    arguments = parser.parse_args()
    rows = []
    with ray_session(num_cpus=2):
        for row in table(arguments.names):
            rows.append(row)
            sys.stdout.write(row + "\n")
            sys.stdout.flush()
    if arguments.write:
        page = REPOSITORY / "tests" / "README.md"
        before, _, rest = page.read_text().partition(BEGIN)
        page.write_text("\n".join([before + BEGIN, "", *HEAD, *rows, "", END]) + rest.partition(END)[2])


if __name__ == "__main__":
    main()
