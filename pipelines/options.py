"""The options of ``prepare`` and ``verify``."""

from __future__ import annotations

import argparse

from crossdim.foundation import entry_point
from crossdim.foundation.config_options import AppendSetting, add_config_options, add_set_option
from crossdim.foundation.option_types import at_least_one
from crossdim.foundation.plan_table import add_price_options
from crossdim.foundation.storage_arguments import add_store_options, add_version_option
from crossdim.pipelines.recipe_names import RECIPE_NAMES
from crossdim.storage_schema.vocabulary import Modality

#: Value of ``--label``: the nearest folder above a file is its label.
FOLDER = "folder"


def add_prepare_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``prepare``, and two examples."""
    parser.add_argument("sources", nargs="+", metavar="SRC", help="folder, bucket or file of images or volumes")
    parser.add_argument("--recipe", required=True, metavar="NAME", help="such as ct-superpatches, or module:function")
    parser.add_argument("--out", required=True, metavar="URL", help="where the dataset is published")
    add_set_option(parser)
    parser.add_argument("--name", help="name of the dataset; default: the recipe's")
    parser.add_argument("--modality", choices=[str(m) for m in Modality], help="modality of files whose header does not state it")
    parser.add_argument("--test-fraction", type=float, default=0.0, metavar="F", help="share of patients held out (default 0)")
    parser.add_argument("--label", choices=[FOLDER], help="take the nearest folder above a file as its label (not a hidden one)")
    parser.add_argument("--labels", metavar="FILE.csv", help="table with a column path, relative to SRC or to SRC's parent")
    parser.add_argument("--label-column", metavar="COLUMN", help="column of labels in --labels")
    parser.add_argument(
        "--patient-column", metavar="COLUMN", help="column of patients in --labels; all files of a patient are in the same split"
    )
    parser.add_argument(
        "--missing-values",
        metavar="WORDS",
        help="cells of --labels that mean no value, with commas between (default: blank, NaN, NA, None, NULL and the like)",
    )
    parser.add_argument("--split-by", choices=["patient", "file"], default="patient", help="what --test-fraction is a share of")
    parser.add_argument(
        "--include-label-maps", action="store_true", help="read segmentations as images too; by default they are ignored"
    )
    _add_series_options(parser)
    _add_privacy(parser)
    _add_common(parser)
    parser.add_argument(
        "--append",
        action="store_true",
        help="if --out is published and files were added, changed or removed: publish a version with what is there now",
    )
    planned = "say what will be kept and refused, bytes, time, memory and requests, from a small sample; write nothing"
    parser.add_argument("--plan", action="store_true", help=planned)
    add_price_options(parser, ["cpu_hour", "request", "gb_month"])
    entry_point.add_examples(
        parser,
        [
            "crossdim prepare ~/xray --recipe xray-pseudo3d:tiny --label folder --test-fraction 0.2 --out data/xr",
            "crossdim prepare s3://lab/ct --recipe ct-superpatches --out s3://lab/ct-1mm --ray-address auto --append",
        ],
        RECIPE_NAMES,
    )


def _add_series_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("DICOM series")
    tilted = "slices stacked aslant of their normal (gantry tilt): move each within its plane onto a straight grid (default), or "
    _add_rule(group, "--tilt", "read.tilt", ["correct", "refuse"], f"{tilted}refuse the series")
    missing = "where slices are missing: keep the longest even run of slices (default), or refuse the series"
    _add_rule(group, "--gaps", "read.gaps", ["longest", "refuse"], missing)


def _add_rule(group: argparse._ArgumentGroup, option: str, setting: str, choices: list[str], about: str) -> None:
    """Add an option that is short for one setting of the recipe."""
    about = f"{about}; short for --set {setting}=..."
    group.add_argument(option, action=AppendSetting, dest="set", path=setting, choices=choices, help=about)


def _add_privacy(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("privacy", "patients and UIDs are always hashed with a secret key")
    group.add_argument(
        "--salt-file",
        metavar="FILE",
        help="the secret key, 16 random bytes or more (default: .crossdim-salt in the first SRC)",
    )
    group.add_argument(
        "--source-names",
        choices=["hashed", "relative"],
        help="how inputs are called in the dataset (default: hashed in a SRC with DICOM, relative paths in others)",
    )
    group.add_argument(
        "--name-map",
        metavar="FILE",
        help="where the table of hashed names goes, which is not published (default: beside the key)",
    )
    group.add_argument(
        "--previews",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="small pictures and technical header fields of some refused and ignored files, in previews.json and the page",
    )
    burned_in = "inputs whose DICOM header says that text is burned into their pixels"
    _add_rule(group, "--burned-in", "read.burned_in", ["keep", "refuse"], burned_in)


def add_verify_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``verify``, and two examples."""
    parser.add_argument("dataset", metavar="DATASET", help="folder or URL of a published dataset")
    add_version_option(parser)
    _add_common(parser)
    entry_point.add_examples(
        parser,
        ["crossdim verify data/xr", "crossdim verify s3://lab/ct-1mm --json --endpoint-url http://store.local:9000"],
    )


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ray-address", metavar="ADDRESS", help="Ray cluster to join (auto: the one on this machine); by default Ray starts here"
    )
    parser.add_argument(
        "--local",
        action=argparse.BooleanOptionalAction,
        help="work in this process, without Ray (default: for up to 1000 files and 128 MiB in total, unless a cluster is named)",
    )
    parser.add_argument("--concurrency", type=at_least_one, metavar="N", help="largest number of tasks at a time on Ray")
    parser.add_argument("--json", action="store_true", help="print one JSON object, and no progress")
    add_config_options(parser)
    add_store_options(parser)
