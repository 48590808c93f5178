"""The command line ``crossdim``: finds the module of a verb; nothing heavy is imported until the verb is known."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from crossdim import __version__
from crossdim.foundation import signals
from crossdim.storage_schema.errors import describe_unknown_name

#: verb -> (module of its command line, what it does)
VERBS = {
    "prepare": ("pipelines.cli", "convert images or volumes into a dataset (Ray Data); the same command resumes"),
    "verify": ("pipelines.cli", "read a dataset again and check every byte against its manifest"),
    "show": ("show_cli", "show what a dataset, its quarantine or a run holds, as text or as an HTML page"),
    "pretrain": ("training.cli", "pretrain an encoder on datasets (Ray Train); the same command resumes"),
    "status": ("status_cli", "show how a run or a preparation is doing, from its folder alone"),
    "runs": ("training.cli", "list the runs below a folder with their state and best probe, or remove some"),
    "evaluate": ("training.cli", "compare a run's encoder with untrained ones by probes and write report.html"),
    "study": ("training.cli", "train several configurations with several seeds and write one table; the same command resumes"),
    "gc": ("gc_cli", "remove earlier versions of a dataset"),
    "recipes": ("recipe_cli", "list the recipes of all verbs, or every setting of one with its meaning"),
    "doctor": ("doctor_cli", "check this installation, a storage location and a Ray cluster, and say what to do"),
    "completion": ("completion_cli", "print a script by which bash, zsh or fish completes commands"),
}


#: Words for what a verb does under another name, and where it is.
OTHER_NAMES = {
    "plan": "crossdim prepare --plan and crossdim pretrain --plan estimate time, memory and cost",
    "estimate": "crossdim prepare --plan and crossdim pretrain --plan estimate time, memory and cost",
    "train": "crossdim pretrain starts or resumes a run",
    "resume": "the same crossdim pretrain or prepare command resumes",
    "list": "crossdim runs FOLDER lists runs, and crossdim show DATASET what a dataset holds",
    "export": "a run holds its weights as encoder.pt; crossdim.load_encoder(RUN) loads them in Python",
    "embed": "crossdim.load_encoder(RUN).embed(crossdim.open(DATASET)) computes features in Python",
    "rm": "crossdim runs rm RUN removes a run",
}


def usage() -> str:
    """The text of ``crossdim --help``."""
    lines = [f"  {verb:<10} {what}" for verb, (_, what) in VERBS.items()]
    return "\n".join(
        [
            "usage: crossdim VERB ... | crossdim help VERB | crossdim --version",
            "",
            "Cross-dimensional medical encoders from object storage full of 2D images and 3D volumes.",
            "",
            "verbs:",
            *lines,
            "",
            "Every path is a folder or any fsspec URL.",
            "Exit codes: 0 done, 1 wrong use or answered with no, 2 failed, 3 done with quarantined samples,",
            "4 features collapsed (pretrain --stop-on-collapse), 130 interrupted.",
        ]
    )


def _describe_recipe_of_other_verb(arguments: Sequence[str]) -> str:
    from crossdim.recipe_finder import describe_recipe_of_other_verb

    return describe_recipe_of_other_verb(arguments)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb that the arguments name, by default those of this process; returns the exit code."""
    if argv is not None:
        return _run(list(argv))
    return signals.run_process(lambda: _run(sys.argv[1:]))


def _print(text: str) -> int:
    """Print to standard output; returns the exit code, 2 if nothing can be written there."""
    if sys.stdout is None:
        return 2
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # its reader has left, as head does
        return 0
    except OSError as error:
        sys.stderr.write(f"error: standard output cannot be written: {error.strerror}\n")
        return 2
    return 0


def _run(arguments: list[str]) -> int:
    if len(arguments) > 1 and arguments[0] == "help":
        arguments = [*arguments[1:2], "--help"]
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        return _print(usage()) if arguments else max(1, _print(usage()))
    if arguments[0] == "--version":
        return _print(f"crossdim {__version__}")
    if arguments[0] not in VERBS:
        meant = OTHER_NAMES.get(arguments[0])
        known = f"unknown verb {arguments[0]!r}; {meant}. See crossdim --help" if meant else None
        sys.stderr.write(f"error: {known or describe_unknown_name('verb', arguments[0], VERBS)}\n")
        return 1
    if any(one.startswith("--recipe") for one in arguments) and (sentence := _describe_recipe_of_other_verb(arguments)):
        sys.stderr.write(f"error: {sentence}\n")
        return 1
    module, _ = VERBS[arguments[0]]
    with signals.listen():
        signals.tell_written(written=False)
        try:
            code: int = importlib.import_module(f"crossdim.{module}").main(arguments)
        except KeyboardInterrupt:  # while a verb's modules are imported
            return signals.say(signals.received() or signals.SIGINT)
    return code
