"""ray_cluster.yaml against Ray's own validator, then against what our jobs need of it. Nothing is started and nothing is paid."""

from __future__ import annotations

import copy
import re
import subprocess
import tomllib
from pathlib import Path

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement

# A private door of Ray, and the only one: `ray up` has no dry run. Pinned with Ray itself, which is <2.61 in pyproject.toml.
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "ray_cluster.yaml").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RAY = next(r for group in PROJECT["optional-dependencies"].values() for r in map(Requirement, group) if r.name == "ray")
TOKEN_MODE = "RAY_AUTH_MODE=token"


def cluster() -> dict:
    return yaml.safe_load(TEXT)


def validated(raw: dict) -> dict:
    """What `ray up` would go on with: defaults filled in, then held against Ray's schema."""
    prepared = prepare_config(copy.deepcopy(raw))
    validate_config(prepared)
    return prepared


def changed(path: str, value: object) -> dict:
    document = cluster()
    *parents, last = path.split("/")
    place = document
    for name in parents:
        place = place[name]
    place[last] = value
    return document


@pytest.fixture(scope="module")
def prepared() -> dict:
    return validated(cluster())


def groups(prepared: dict) -> dict[str, dict]:
    return {name: kind for name, kind in prepared["available_node_types"].items() if name != prepared["head_node_type"]}


def test_ray_accepts_the_file_and_adds_nothing_that_runs(prepared):
    """Defaults of Ray install a nightly wheel from elsewhere wherever a list of commands is left out."""
    raw = cluster()

    for name in ("initialization_commands", "head_setup_commands", "worker_setup_commands"):
        assert raw[name] == []
    for name in ("head_start_ray_commands", "worker_start_ray_commands"):
        assert prepared[name] == raw[name]
    assert prepared["head_setup_commands"] == prepared["worker_setup_commands"] == raw["setup_commands"]
    assert "ray-wheels" not in str(prepared)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("autoscale", True),
        ("head_node_type", "heed"),
        ("available_node_types/gpu-train/max_worker", 8),
        ("available_node_types/gpu-train/labels", {"pool": 1}),
        ("available_node_types/gpu-train/resources", {"GPU": "four"}),
        ("available_node_types/gpu-train/min_workers", 99),
        ("auth/ssh_users", "ubuntu"),
        ("setup_commands", [1]),
        ("docker/shm", "4g"),
    ],
)
def test_a_broken_copy_is_refused(path, value):
    """If the validator let these through, the test above would say nothing."""
    with pytest.raises((jsonschema.ValidationError, ValueError)):
        validated(changed(path, value))


def test_no_task_is_placed_on_the_head(prepared):
    """A decoder that runs out of memory beside the cluster's own bookkeeping takes the whole cluster down."""
    head = prepared["available_node_types"][prepared["head_node_type"]]

    assert head["resources"]["CPU"] == head["resources"]["GPU"] == 0
    assert head["max_workers"] == 0


def test_preparation_has_cpu_machines_that_may_vanish(prepared):
    """One shard is one task, so spot prices are for free; none is paid for while nothing is prepared."""
    (group,) = (g for g in groups(prepared).values() if g["labels"]["pool"] == "prepare")

    assert group["resources"]["CPU"] > 0
    assert group["resources"]["GPU"] == 0
    assert group["min_workers"] == 0
    assert group["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}


def test_training_can_grow_and_shrink(prepared):
    """Elastic means a range of machines: with one there is nothing to grow into."""
    (group,) = (g for g in groups(prepared).values() if g["labels"]["pool"] == "train")

    assert group["resources"]["GPU"] >= 1
    assert group["min_workers"] in (0, 1)
    assert group["max_workers"] == 8
    assert group["idle_timeout_s"] >= 60 * prepared["idle_timeout_minutes"]


def test_the_cluster_may_hold_all_of_its_groups(prepared):
    """A lower limit on the whole would silently keep training small while data are prepared."""
    assert prepared["max_workers"] >= sum(group["max_workers"] for group in groups(prepared).values())


def test_machines_install_the_versions_that_were_tested(prepared):
    """Exactly one Ray everywhere: the one of the images, of the setup commands, and within the range of pyproject.toml."""
    commands = "\n".join(cluster()["setup_commands"])
    (pinned,) = re.findall(r"ray\[[a-z,]+\]==([\w.]+)", commands)
    docker = prepared["docker"]
    images = [
        docker["head_image"],
        docker["worker_image"],
        *(g["docker"]["worker_image"] for g in groups(prepared).values() if "docker" in g),
    ]

    assert RAY.specifier.contains(pinned)
    assert re.search(r"ray\[([a-z,]+)\]", commands).group(1).split(",") == sorted(RAY.extras)
    assert all(image.startswith(f"rayproject/ray:{pinned}-py311-") for image in images)
    assert f'"crossdim[all]=={PROJECT["version"]}"' in commands


def test_every_door_of_the_cluster_asks_for_the_token(prepared):
    """Ray 2.60 leaves authentication off on a head that finds no token, and a worker never turns it on by itself."""
    for name in ("head_start_ray_commands", "worker_start_ray_commands"):
        (start,) = (command for command in prepared[name] if "ray start" in command)
        assert TOKEN_MODE in start[: start.index("ray start")]
    assert any(f"export {TOKEN_MODE}" in command for command in cluster()["setup_commands"])
    assert "--dashboard-host=127.0.0.1" in str(prepared["head_start_ray_commands"])


def test_every_command_is_one_that_a_shell_can_parse(prepared):
    """A quote lost in folding YAML shows up on a machine that is already being paid for."""
    lists = ("head_setup_commands", "worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands")
    for command in (command for name in lists for command in prepared[name]):
        done = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True, timeout=10, check=False)

        assert (done.returncode, done.stderr) == (0, "")
        assert "\n" not in command


def test_no_secret_and_no_laptop_file_is_part_of_the_cluster(prepared):
    """A machine that joins next week must come up from this file alone; a token in it would be in the repository."""
    assert prepared["file_mounts"] == {}
    assert not re.search(r"AKIA|BEGIN [A-Z ]*PRIVATE KEY|\b[0-9a-f]{40,}\b", TEXT)


def test_every_machine_may_open_the_bucket(prepared):
    """Ray gives its default role to the head alone."""
    assert all("IamInstanceProfile" in kind["node_config"] for kind in prepared["available_node_types"].values())


def test_the_object_store_fits_into_shared_memory(prepared):
    """A store that is larger than /dev/shm falls back to disk, and says so only in a log."""
    docker = prepared["docker"]
    for options, commands in (
        ("head_run_options", "head_start_ray_commands"),
        ("worker_run_options", "worker_start_ray_commands"),
    ):
        (gigabytes,) = re.findall(r"--shm-size=(\d+)g", str(docker[options]))
        (store,) = re.findall(r"--object-store-memory=(\d+)", str(prepared[commands]))

        assert int(store) < int(gigabytes) * 2**30 / 1.5
