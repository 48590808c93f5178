"""The verb ``completion``: prints a script by which a shell completes verbs, options and names of recipes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence

from crossdim import doctor_cli, gc_cli, recipe_cli, show_cli
from crossdim.foundation import entry_point
from crossdim.foundation.config_options import option_key
from crossdim.pipelines import cli as pipelines
from crossdim.pipelines.recipe_names import RECIPE_NAMES as OF_PREPARE
from crossdim.recipe_text import list_names
from crossdim.training import cli as training
from crossdim.training.recipe_names import RECIPE_NAMES as OF_PRETRAIN
from crossdim.training.run_verbs import REMOVE
from crossdim.training.study_subjects import STUDY_SUBJECTS

SHELLS = ("bash", "zsh", "fish")
#: What the metavars of paths begin with.
PATHS = ("URL", "SRC", "RUN", "DATASET", "FILE")
#: Names that a verb's option or argument takes, by verb and key.
NAMES: dict[tuple[str, str], Iterable[str]] = {
    ("prepare", "recipe"): OF_PREPARE,
    ("pretrain", "recipe"): OF_PRETRAIN,
    ("study", "recipe"): OF_PRETRAIN,
    ("study", "study"): STUDY_SUBJECTS,
    ("recipes", "name"): list_names(),
    ("recipes", "diff"): (*OF_PREPARE, *OF_PRETRAIN),
}
PLACES = (
    "~/.local/share/bash-completion/completions/crossdim, as _crossdim in a folder of zsh's fpath, or as "
    "~/.config/fish/completions/crossdim.fish"
)
#: Bash takes a colon for the end of a word, and names of recipes and URLs hold one.
BASH_PREAMBLE = f"""COMP_WORDBREAKS=${{COMP_WORDBREAKS//:}}
_crossdim_runs() {{
  compgen -W {REMOVE} -- "$1"
  _shtab_compgen_files "$1"
}}"""
#: What completes the folders of ``runs``, before which the word for removal may stand.
RUNS = {
    "bash": "_crossdim_runs",
    "zsh": f"{{_alternative 'words:word:({REMOVE})' 'files:file:_files'}}",
    "fish": f"(echo {REMOVE}; __fish_complete_path (commandline -ct))",
}


def build_parser() -> argparse.ArgumentParser:
    """The command line of ``completion``."""
    parser = entry_point.Parser(prog="crossdim", description="Completion for shells.")
    add_verbs(parser.add_subparsers(metavar="VERB", required=True))
    return parser


def add_verbs(verbs: argparse._SubParsersAction[entry_point.Parser]) -> None:
    """Add the verb ``completion``."""
    about = "print a script by which bash, zsh or fish completes commands"
    parser = verbs.add_parser("completion", help=about, description=f"{about[0].upper()}{about[1:]}. Save it as {PLACES}.")
    parser.add_argument("shell", choices=SHELLS, metavar="SHELL", help=f"one of {', '.join(SHELLS)}")
    entry_point.add_examples(
        parser,
        ["crossdim completion bash", "crossdim completion fish"],
    )
    parser.set_defaults(verb=_completion)


def build_whole_parser(shell: str) -> argparse.ArgumentParser:
    """All verbs in one parser, with the names and paths that each option takes: for completion, not for parsing."""
    import shtab

    whole = entry_point.Parser(prog="crossdim")
    verbs = whole.add_subparsers(metavar="VERB")
    for module in (pipelines, training, recipe_cli, show_cli, doctor_cli, gc_cli, sys.modules[__name__]):
        module.add_verbs(verbs)
    for verb, parser in verbs.choices.items():
        for action in parser._actions:
            key = option_key(action)
            if (verb, key) in NAMES:
                names = NAMES[verb, key]
                # In zsh's specifications a colon ends the list of names, and shtab does not escape it.
                action.choices = [name.replace(":", "\\:") for name in names] if shell == "zsh" else list(names)
            elif (verb, key) == ("runs", "folder"):
                action.complete = RUNS  # type: ignore[attr-defined]
            elif key != "endpoint-url" and str(action.metavar).startswith(PATHS):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
    return whole


def _completion(arguments: argparse.Namespace) -> int:
    import shtab

    preamble = BASH_PREAMBLE if arguments.shell == "bash" else ""
    script = shtab.complete(build_whole_parser(arguments.shell), shell=arguments.shell, preamble=preamble)
    entry_point.print_result({"script": script}, script, as_json=False)
    return entry_point.DONE


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb that ``argv`` starts with."""
    return entry_point.main(build_parser, argv)
