"""Files of ``--config``: what they say is what the command line would say, which wins; all that is wrong is told at once."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import jsonschema
import pytest
import yaml

from crossdim.foundation import entry_point
from crossdim.foundation.config_options import AppendSetting, add_config_options, add_set_option, find_verb
from crossdim.foundation.config_schema import build_file_schema
from crossdim.foundation.setting_schema import build_settings_schema
from crossdim.foundation.settings import Families, override_settings
from crossdim.foundation.yaml_reader import DEEPEST, LARGEST_FILE_BYTES, read_yaml
from crossdim.storage_schema.errors import StorageError, UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """A family."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Masked(Method):
    kind: ClassVar[str] = "masked"
    ratio: float = 0.75
    depth: int = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Paired(Method):
    kind: ClassVar[str] = "paired"
    views: int = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    name: str = "a"
    rate: float = 0.1
    steps: int = 10
    method: Method = field(default_factory=Masked)
    sides: tuple[int, ...] = (1, 2)


FAMILIES: Families = {Method: {"masked": Masked, "paired": Paired}}
SEEN: list[argparse.Namespace] = []


def run_verb(arguments: argparse.Namespace) -> int:
    SEEN.append(arguments)
    return entry_point.DONE


def build() -> argparse.ArgumentParser:
    parser = entry_point.Parser(prog="crossdim")
    verb = parser.add_subparsers(required=True).add_parser("train")
    verb.add_argument("sources", nargs="+")
    verb.add_argument("--recipe", required=True)
    verb.add_argument("--out", required=True)
    verb.add_argument("--data", nargs="+", default=[])
    verb.add_argument("--steps", action=AppendSetting, dest="set", path="steps", type=int)
    verb.add_argument("--workers", type=lambda text: tuple(map(int, text.split(":"))), default="1")
    verb.add_argument("--side", choices=["left", "right"])
    verb.add_argument("--extension", action="append", default=[])
    verb.add_argument("--watch", type=float, nargs="?", const=5.0)
    verb.add_argument("--gpu", action="store_true")
    verb.add_argument("--json", action="store_true")
    verb.add_argument("--secret-key")
    add_set_option(verb)
    add_config_options(verb)
    verb.set_defaults(verb=run_verb, load_recipe=lambda arguments: (Recipe(), FAMILIES))
    return parser


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    SEEN.clear()

    def write(text: str) -> None:
        Path("run.yaml").write_text(text)

    return write


def train(*arguments: str) -> argparse.Namespace:
    assert entry_point.main(build, ["train", *arguments]) == 0
    return SEEN[-1]


def refuse(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 1) -> str:
    assert entry_point.main(build, ["train", *arguments]) == code
    assert SEEN == []
    return capsys.readouterr().err


FULL = """\
# everything that the verb needs
sources: [a, b]
recipe: small   # of ours
out: s3://lab/x
data: one
workers: 2:16
side: left
extension: [my_lab.nets]
watch: true
gpu: true
steps: 20
set:
  rate: 1e-3
  method.ratio: 0.5
  method:
    depth: 3
  sides: [3, 4]
"""


def test_a_file_gives_every_option_that_the_command_line_leaves_out(write) -> None:
    write(FULL)
    found = train("--config", "run.yaml")
    assert (found.sources, found.recipe, found.out, found.data) == (["a", "b"], "small", "s3://lab/x", ["one"])
    assert (found.workers, found.side, found.extension, found.watch, found.gpu) == ((2, 16), "left", ["my_lab.nets"], 5.0, True)
    expected = Recipe(rate=1e-3, steps=20, method=Masked(ratio=0.5, depth=3), sides=(3, 4))
    assert override_settings(Recipe(), found.set, FAMILIES) == expected


def test_the_command_line_wins_over_the_file(write) -> None:
    write(FULL)
    line = [
        "c",
        "--config",
        "run.yaml",
        "--data",
        "two",
        "three",
        "--workers",
        "3",
        "--no-gpu",
        "--set",
        "rate=0.2",
        "--steps",
        "5",
    ]
    found = train(*line, "--extension", "other", "--side=right")
    assert (found.sources, found.data, found.workers, found.gpu, found.side) == (["c"], ["two", "three"], (3,), False, "right")
    assert found.extension == ["my_lab.nets", "other"]
    config = override_settings(Recipe(), found.set, FAMILIES)
    assert (config.rate, config.steps, config.method) == (0.2, 5, Masked(ratio=0.5, depth=3))


def test_positions_may_stand_behind_options(write) -> None:
    write("recipe: small\n")
    assert train("--out", "x", "--config=run.yaml", "a", "b").sources == ["a", "b"]


def test_what_is_required_may_be_in_neither(write, capsys: pytest.CaptureFixture[str]) -> None:
    write("recipe: small\nout: null\n")
    with pytest.raises(SystemExit, match="1"):
        entry_point.main(build, ["train", "--config", "run.yaml"])
    assert "arguments are required: sources, --out" in capsys.readouterr().err


def test_a_mapping_with_a_kind_takes_the_place_of_a_part(write) -> None:
    write("set:\n  method.views: 7\n  method: {kind: paired}\n")
    found = train("a", "--recipe", "r", "--out", "x", "--config", "run.yaml")
    assert override_settings(Recipe(), found.set, FAMILIES).method == Paired(views=7)


def test_everything_that_is_wrong_is_told_at_once(write, capsys: pytest.CaptureFixture[str]) -> None:
    write(
        "recipe: small\nrecip: x\nworkers: many\nside: lft\ngpu: 1\nout: [a, b]\nsteps: ten\nconfig: other.yaml\n"
        "set:\n  rat: 1\n  method: {kind: paird}\n  name: 3\n  steps: 1.5\n"
    )
    shown = refuse(capsys, "a", "--config", "run.yaml")
    assert "run.yaml (10 problems)" in shown
    for line, said in (
        (2, "did you mean recipe"),
        (3, "workers: expected"),
        (4, "did you mean left"),
        (5, "gpu: expected true or false; found 1"),
        (6, "out: expected one value"),
        (7, "steps: expected int; found 'ten'"),
        (8, "unknown option 'config'"),
        (10, "did you mean rate"),
        (11, "did you mean paired"),
        (13, "expected int"),
    ):
        (found,) = [one for one in shown.splitlines() if one.strip().startswith(f"run.yaml:{line}:")]
        assert said in found


def test_wrong_settings_alone_are_told_together(write, capsys: pytest.CaptureFixture[str]) -> None:
    write("set:\n  rat: 1\n  stps: 2\n")
    found = train("a", "--recipe", "r", "--out", "x", "--config", "run.yaml")
    with pytest.raises(UsageError) as caught:
        override_settings(Recipe(), found.set, FAMILIES)
    assert str(caught.value).splitlines()[0] == "2 settings"
    assert all(f"run.yaml:{line}: " in str(caught.value) for line in (2, 3))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\na: 2\n", "run.yaml:2: a stands twice, also in line 1"),
        ("set: {rate: 1, rate: 2}\n", "run.yaml:1: rate stands twice"),
        ("steps: 3\nset: {steps: 4}\n", "run.yaml:2: steps stands twice, also in run.yaml:1"),
        ("set:\n  method.ratio: 1\n  method: {ratio: 1}\n", "run.yaml:3: method.ratio stands twice"),
        ("a: &x 1\nb: *x\n", "run.yaml:2: aliases"),
        ("a: !!python/object:os.system 1\n", "run.yaml:1: "),
        ("out: !secret x\n", "run.yaml:1: 'x' is no text"),
        ("a: [1\n", "run.yaml:2: no YAML"),
        ("- a\n", "run.yaml:1: expected options"),
        ("[" * (DEEPEST + 5), f"nested more than {DEEPEST} deep"),
        ("out: x\n---\nout: y\n", "no YAML"),
        ("a: \x00", "is no YAML"),
        ("{a: 1}: 2\n", "a key is a text"),
        ("#" * (LARGEST_FILE_BYTES + 1), "has more than 256 KiB"),
        ("set: 3\n", "set: expected settings"),
        ("sources: []\n", "at least one value"),
        (f"a: {'9' * 5000}\n", "no text, number"),
    ],
)
def test_a_file_that_is_unclear_is_refused(text: str, said: str, write, capsys: pytest.CaptureFixture[str]) -> None:
    write(text)
    assert said in refuse(capsys, "a", "--config", "run.yaml")


def test_a_file_that_is_not_there_is_a_failure(write, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--config nowhere.yaml cannot be read" in refuse(capsys, "a", "--config", "nowhere.yaml", code=2)
    os.mkfifo("pipe")
    with pytest.raises(StorageError):
        read_yaml("pipe", "--config")
    Path("run.yaml").write_bytes(b"\xff\xfe\xff")
    assert "no text in UTF-8" in refuse(capsys, "a", "--config", "run.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2:16", "2:16"),
        ("no", "no"),
        ("1e-3", 1e-3),
        ("007", 7),
        ("1_000", "1_000"),
        ("2026-01-01", "2026-01-01"),
        ("~", None),
        ("", None),
        ("True", True),
        ("'1'", "1"),
        ("-.5", -0.5),
        ("<<", "<<"),
        ("[a, {b: 2}]", ["a", {"b": 2}]),
    ],
)
def test_values_are_those_of_yaml_1_2(text: str, value: Any, write) -> None:
    """In YAML 1.1 two to sixteen workers are 136, and a rate of 1e-3 is a text."""
    write(f"a: {text}\n")
    found = read_yaml("run.yaml", "--config").items["a"].value
    assert (found, type(found)) == (value, type(value))


# ---- --print-config ----


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert entry_point.main(build, ["train", *arguments, "--print-config"]) == 0
    assert SEEN == [], "the verb ran"
    return capsys.readouterr().out


def test_every_value_is_printed_with_its_origin(write, capsys: pytest.CaptureFixture[str]) -> None:
    write(FULL)
    lines = printed(capsys, "--config", "run.yaml", "--no-gpu", "--set", "sides=[9]", "--extension", "other").splitlines()
    origins = {line.partition("  #")[0].strip(): line.partition("# ")[2] for line in lines}
    assert origins["sources: [a, b]"] == "run.yaml:2"
    assert origins["workers: '2:16'"] == "run.yaml:6"
    assert origins["gpu: false"] == "command line"
    assert origins["secret-key: null"] == "default"
    assert origins["extension: [my_lab.nets, other]"] == "run.yaml:8, command line"
    assert origins["name: a"] == "recipe"
    assert origins["rate: 0.001"] == "run.yaml:13"
    assert origins["steps: 20"] == "run.yaml:11"
    assert origins["kind: masked"] == "recipe"
    assert origins["ratio: 0.5"] == "run.yaml:14"
    assert origins["depth: 3"] == "run.yaml:16"
    assert origins["sides: [9]"] == "command line"


def test_what_is_printed_is_read_back(write, capsys: pytest.CaptureFixture[str]) -> None:
    write(FULL)
    text = printed(capsys, "--config", "run.yaml", "--set", 'method={"kind": "paired"}')
    write(text)
    again = printed(capsys, "--config", "run.yaml")
    assert yaml.safe_load(again) == yaml.safe_load(text)
    assert yaml.safe_load(text)["set"]["method"] == {"kind": "paired", "views": 2}


def test_what_is_missing_is_shown_and_secrets_are_not(write, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, "--out", "x", "--secret-key", "hunter2")
    assert "hunter2" not in text
    lines = {line.partition(":")[0]: line.partition("# ")[2] for line in text.splitlines()}
    assert (lines["recipe"], lines["sources"], lines["out"]) == ("missing", "missing", "command line")
    assert lines["secret-key"] == "command line, not shown"
    assert "set" not in lines


def test_the_configuration_is_printed_as_json(write, capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads(printed(capsys, "a", "--recipe", "r", "--out", "x", "--steps", "7", "--json"))
    assert document["options"]["recipe"] == {"value": "r", "from": "command line"}
    assert document["settings"]["steps"] == {"value": 7, "from": "command line"}
    assert document["settings"]["method.kind"] == {"value": "masked", "from": "recipe"}


def test_a_wrong_command_line_is_refused_as_without_a_file(write, capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in (["--workers", "x"], ["--side", "up"], ["--unheard"], ["--conf", "run.yaml"]):
        with pytest.raises(SystemExit, match="1"):
            entry_point.main(build, ["train", "a", "--recipe", "r", "--out", "x", "--print-config", *wrong])
    with pytest.raises(SystemExit, match="1"):
        entry_point.main(build, ["tain", "--config", "run.yaml"])


def test_the_schema_accepts_what_is_read_and_refuses_what_is_not(write, capsys: pytest.CaptureFixture[str]) -> None:
    settings = build_settings_schema(Recipe, FAMILIES, Recipe())
    check = jsonschema.Draft202012Validator(build_file_schema(find_verb(build(), "train"), settings, "train"))
    check.check_schema(check.schema)
    write(FULL)
    check.validate(read_yaml("run.yaml", "--config").value)
    check.validate(yaml.safe_load(printed(capsys, "--config", "run.yaml")))
    for wrong in ({"recip": "x"}, {"gpu": "yes"}, {"side": "up"}, {"set": {"rat": 1}}, {"steps": "ten"}, {"set": {"rate": "x"}}):
        with pytest.raises(jsonschema.ValidationError):
            check.validate(wrong)
