"""The verb ``recipes``: what ``prepare``, ``pretrain``, ``study`` and ``evaluate`` offer, and every setting of a recipe."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from crossdim.foundation import entry_point
from crossdim.foundation.config_options import find_verb
from crossdim.recipe_finder import FoundRecipe, find_recipe
from crossdim.recipe_text import comment_settings, compare_recipes, describe_recipe, describe_task, list_names, list_recipes
from crossdim.storage_schema.errors import UsageError


def build_parser() -> argparse.ArgumentParser:
    """The command line of ``recipes``."""
    parser = entry_point.Parser(prog="crossdim", description="The recipes and their settings.")
    add_verbs(parser.add_subparsers(metavar="VERB", required=True))
    return parser


def add_verbs(verbs: argparse._SubParsersAction[entry_point.Parser]) -> None:
    """Add the verb ``recipes``."""
    parser = verbs.add_parser("recipes", help="list the recipes of all verbs, or every setting of one")
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="a recipe, or module:function of your own; without one, all are listed"
    )
    forms = parser.add_mutually_exclusive_group()
    forms.add_argument("--diff", metavar="OTHER", help="only the settings that differ from another recipe")
    forms.add_argument("--yaml", action="store_const", const=True, default=False, help="as a file that --config reads")
    forms.add_argument(
        "--schema", action="store_const", const=True, default=False, help="the JSON schema of such a file, for editors"
    )
    parser.add_argument("--json", action="store_const", const=True, default=False, help="print one JSON object")
    entry_point.add_examples(
        parser,
        ["crossdim recipes cdssl-p3d:tiny", "crossdim recipes maesil --diff maesil:small"],
        list_names(),
    )
    parser.set_defaults(verb=_recipes)


def _recipes(arguments: argparse.Namespace) -> int:
    name = arguments.name
    if name is None:
        if arguments.diff or arguments.yaml or arguments.schema:
            raise UsageError("--diff, --yaml and --schema are about one recipe; name it: crossdim recipes NAME")
        document, text = list_recipes()
    elif task := describe_task(name):
        if arguments.diff or arguments.yaml or arguments.schema:
            raise UsageError(f"{name} has no settings of its own; name a recipe: crossdim recipes lists them")
        document, text = task
    elif arguments.diff:
        if describe_task(arguments.diff):
            raise UsageError(f"{arguments.diff} has no settings of its own; name a recipe: crossdim recipes lists them")
        document, text = compare_recipes(find_recipe(name), find_recipe(arguments.diff))
    elif arguments.yaml or arguments.schema:
        return _print_file(find_recipe(name), arguments)
    else:
        document, text = describe_recipe(find_recipe(name))
    entry_point.print_result(document, text, as_json=arguments.json)
    return entry_point.DONE


def _print_file(found: FoundRecipe, arguments: argparse.Namespace) -> int:
    """Print a file for ``--config``, or its schema."""
    from crossdim.foundation.config_schema import build_file_schema
    from crossdim.foundation.setting_schema import build_settings_schema
    from crossdim.foundation.settings import to_document
    from crossdim.foundation.yaml_text import write_yaml

    if arguments.schema:
        settings = build_settings_schema(type(found.config), found.families, found.config)
        title = f"crossdim {found.verb} --config, with the settings of {found.name}"
        schema = build_file_schema(_find_parser(found.verb), settings, title)
        entry_point.print_result(schema, json.dumps(schema, indent=2), as_json=arguments.json)
        return entry_point.DONE
    document = {"recipe": found.name, "set": to_document(found.config)}
    head = f"# crossdim {found.verb} --config FILE ...; leave out what stays as it is\n"
    entry_point.print_result(document, head + write_yaml(document, comment_settings(found, "set")), as_json=arguments.json)
    return entry_point.DONE


def _find_parser(verb: str) -> argparse.ArgumentParser:
    from crossdim.pipelines.cli import build_parser as build_pipelines
    from crossdim.training.cli import build_parser as build_training

    build = build_pipelines if verb == "prepare" else build_training
    return find_verb(build(), verb)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the verb that ``argv`` starts with."""
    return entry_point.main(build_parser, argv)
