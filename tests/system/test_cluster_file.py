"""The files of `ray up` against Ray's own validator, then against what our jobs need. Nothing is started and nothing is paid."""

from __future__ import annotations

import copy
import re
import subprocess
import tomllib
from pathlib import Path

import click
import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement

# Private functions of Ray, the only ones that are used: `ray up` has no dry run. Ray is pinned to <2.61 in pyproject.toml.
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.instance_manager.subscribers.cloud_resource_monitor import CloudResourceMonitor
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil
from ray.core.generated.autoscaler_pb2 import GangResourceRequest
from ray.core.generated.instance_manager_pb2 import Instance, InstanceUpdateEvent

ROOT = Path(__file__).parents[2]
AWS, GCP, LOCAL = "ray_cluster.yaml", "deploy/gcp.yaml", "deploy/local.yaml"
CLOUDS = (AWS, GCP)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RAY = next(r for group in PROJECT["optional-dependencies"].values() for r in map(Requirement, group) if r.name == "ray")
TOKEN_MODE = "RAY_AUTH_MODE=token"


def cluster(name: str) -> dict:
    return yaml.safe_load((ROOT / name).read_text())


def validated(raw: dict) -> dict:
    """What `ray up` would go on with: defaults filled in, then held against Ray's schema."""
    prepared = prepare_config(copy.deepcopy(raw))
    validate_config(prepared)
    return prepared


def changed(name: str, path: str, value: object) -> dict:
    document = cluster(name)
    *parents, last = path.split("/")
    place = document
    for parent in parents:
        place = place[parent]
    place[last] = value
    return document


@pytest.fixture(params=[AWS, GCP, LOCAL])
def name(request) -> str:
    return request.param


@pytest.fixture
def prepared(name) -> dict:
    return validated(cluster(name))


@pytest.fixture(params=CLOUDS)
def cloud(request) -> dict:
    return validated(cluster(request.param))


def groups(prepared: dict, pool: str | None = None) -> dict[str, dict]:
    kinds = {name: kind for name, kind in prepared["available_node_types"].items() if name != prepared["head_node_type"]}
    return {name: kind for name, kind in kinds.items() if pool in (None, kind.get("labels", {}).get("pool"))}


def launched(cloud: dict, gpus: int, **state: object) -> dict[str, int]:
    """What the autoscaler would start for a run that asks for this many workers with a GPU each."""
    kinds = AutoscalingConfig(cloud, skip_content_hash=True)
    workers = [ResourceRequestUtil.make({"CPU": 1, "GPU": 1})] * gpus
    request = SchedulingRequest(
        node_type_configs=kinds.get_node_type_configs(),
        max_num_nodes=kinds.get_max_num_nodes(),
        disable_launch_config_check=True,
        gang_resource_requests=[GangResourceRequest(requests=workers)],
        **state,
    )
    return {launch.instance_type: launch.count for launch in ResourceDemandScheduler().schedule(request).to_launch}


def test_ray_accepts_the_file_and_adds_nothing_that_runs(name, prepared):
    """Defaults of Ray install a nightly wheel from elsewhere wherever a list of commands is left out."""
    raw = cluster(name)

    for commands in ("initialization_commands", "head_start_ray_commands", "worker_start_ray_commands"):
        assert prepared[commands] == raw[commands]
    for commands in ("head_setup_commands", "worker_setup_commands"):
        assert prepared[commands] == raw["setup_commands"] + raw[commands]
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
        ("available_node_types/gpu-train/priority", "high"),
        ("docker/shm", "4g"),
    ],
)
@pytest.mark.parametrize("file", CLOUDS)
def test_a_broken_copy_is_refused(file, path, value):
    """If the validator let these through, the test above would say nothing."""
    with pytest.raises((jsonschema.ValidationError, ValueError)):
        validated(changed(file, path, value))


@pytest.mark.parametrize(
    ("path", "value"), [("provider/head_ips", "10.0.0.1"), ("max_worker", 2), ("auth/ssh_users", "lab"), ("setup_commands", [1])]
)
def test_a_broken_copy_of_the_file_by_address_is_refused(path, value):
    """Ray takes any field of a provider, so a misspelt one is seen here only by what is missing then."""
    document = changed(LOCAL, path, value)
    if path == "provider/head_ips":
        del document["provider"]["head_ip"]
    with pytest.raises((jsonschema.ValidationError, ValueError, click.ClickException)):
        validated(document)


def test_machines_by_address_are_all_taken_and_the_head_does_no_work():
    """Ray makes one kind of machine of them all, so the head's zeros stand in its start command."""
    prepared = validated(cluster(LOCAL))
    (kind,) = prepared["available_node_types"].values()

    assert kind["min_workers"] == kind["max_workers"] == len(prepared["provider"]["worker_ips"])
    assert "--num-cpus=0 --num-gpus=0" in str(prepared["head_start_ray_commands"])
    assert "RAY_UP_enable_autoscaler_v2=0 ray up" in (ROOT / LOCAL).read_text()


def test_no_task_is_placed_on_the_head(cloud):
    """A decoder that runs out of memory beside the cluster's own bookkeeping takes the whole cluster down."""
    head = cloud["available_node_types"][cloud["head_node_type"]]

    assert head["resources"]["CPU"] == head["resources"]["GPU"] == 0
    assert head["max_workers"] == 0


def spot(machine: dict) -> bool:
    """Whether a machine may be taken back, in the words of AWS or of Google."""
    market = machine.get("InstanceMarketOptions") == {"MarketType": "spot"}
    return market or machine.get("scheduling", {}).get("provisioningModel") == "SPOT"


def test_preparation_has_cpu_machines_that_may_vanish(cloud):
    """One shard is one task, so spot prices are for free; none is paid for while nothing is prepared."""
    (group,) = groups(cloud, "prepare").values()

    assert group["resources"]["CPU"] > 0
    assert group["resources"]["GPU"] == 0
    assert group["min_workers"] == 0
    assert spot(group["node_config"])


def test_training_has_a_floor_that_stays_and_growth_that_may_vanish(cloud):
    """Elastic means a range of machines: with one there is nothing to grow into, and without a floor nothing to go on with."""
    train = groups(cloud, "train")

    assert {name: spot(group["node_config"]) for name, group in train.items()} == {"gpu-train": False, "gpu-spot": True}
    assert sum(group["max_workers"] for group in train.values()) == 8
    for group in train.values():
        assert group["resources"] == {"CPU": 48, "GPU": 4}
        assert group["min_workers"] == 0
        assert group["idle_timeout_s"] >= 60 * cloud["idle_timeout_minutes"]


def test_the_autoscaler_fills_the_floor_before_it_grows_on_spot(cloud):
    """Asked of Ray's own scheduler, with the worker counts of an elastic run."""
    assert launched(cloud, 2) == {"gpu-train": 1}
    assert launched(cloud, 8) == {"gpu-train": 2}
    assert launched(cloud, 16) == {"gpu-train": 2, "gpu-spot": 2}
    assert launched(cloud, 33) == {}  # more than there may be: nothing, rather than a part that cannot start


@pytest.mark.parametrize(
    ("status", "noticed"),
    [(Instance.ALLOCATION_FAILED, False), (Instance.ALLOCATION_TIMEOUT, True)],
    ids=["refused", "never joined"],
)
def test_ray_turns_from_a_group_that_never_joins_but_not_from_one_that_is_refused(cloud, status, noticed):
    """The limit that ray_cluster.yaml states. If a later Ray notices refusals, spot can come first and this test says so."""
    monitor = CloudResourceMonitor()
    monitor.notify([InstanceUpdateEvent(instance_id="1", instance_type="gpu-train", new_instance_status=status)])
    scores = monitor.get_recoverable_resource_availabilities()

    expected = {"gpu-spot": 1} if noticed else {"gpu-train": 1}
    assert launched(cloud, 4, recoverable_resource_availabilities=scores) == expected


def test_the_cluster_may_hold_all_of_its_groups(cloud):
    """A lower limit on the whole would silently keep training small while data are prepared."""
    assert cloud["max_workers"] >= sum(group["max_workers"] for group in groups(cloud).values())


def test_machines_install_the_versions_that_were_tested(name, prepared):
    """Exactly one Ray everywhere: the one of the images, of the setup commands, and within the range of pyproject.toml."""
    commands = "\n".join(cluster(name)["setup_commands"])
    (pinned,) = re.findall(r"ray\[[a-z,]+\]==([\w.]+)", commands)
    images = re.findall(r"rayproject/ray:[\w.-]+", str(prepared))

    assert RAY.specifier.contains(pinned)
    assert re.search(r"ray\[([a-z,]+)\]", commands).group(1).split(",") == sorted(RAY.extras)
    assert all(image.startswith(f"rayproject/ray:{pinned}-py311-") for image in images)
    assert len(images) == (0 if name == LOCAL else 3)
    assert f'"crossdim[all]=={PROJECT["version"]}"' in commands


def test_every_port_of_the_cluster_asks_for_the_token(name, prepared):
    """Ray 2.60 leaves authentication off on a head that finds no token, and a worker never turns it on by itself."""
    for commands in ("head_start_ray_commands", "worker_start_ray_commands"):
        (start,) = (command for command in prepared[commands] if "ray start" in command)
        assert TOKEN_MODE in start[: start.index("ray start")]
    assert any("export" in command and TOKEN_MODE in command for command in cluster(name)["setup_commands"])
    assert "--dashboard-host=127.0.0.1" in str(prepared["head_start_ray_commands"])


def test_every_command_is_one_that_a_shell_can_parse(prepared):
    """A quote lost in folding YAML shows up on a machine that is already being paid for."""
    lists = ("head_setup_commands", "worker_setup_commands", "head_start_ray_commands", "worker_start_ray_commands")
    for command in (command for commands in lists for command in prepared[commands]):
        done = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True, timeout=10, check=False)

        assert (done.returncode, done.stderr) == (0, "")
        assert "\n" not in command


def test_no_secret_and_no_laptop_file_is_part_of_the_cluster(name, prepared):
    """A machine that joins next week must come up from this file alone; a token in it would be in the repository."""
    assert prepared["file_mounts"] == {}
    assert not re.search(r"AKIA|BEGIN [A-Z ]*PRIVATE KEY|\b[0-9a-f]{40,}\b", (ROOT / name).read_text())


def test_every_machine_may_open_the_bucket(cloud):
    """Ray gives its default role to the head alone."""
    for name, kind in cloud["available_node_types"].items():
        identity = str(kind["node_config"].get("IamInstanceProfile") or kind["node_config"].get("serviceAccounts"))
        assert ("crossdim-head" if name == cloud["head_node_type"] else "crossdim-worker") in identity


def test_one_project_of_google_is_named_throughout():
    """A machine, a disk type or a secret of another project is found out only when it is asked for."""
    project = cluster(GCP)["provider"]["project_id"]
    text = re.sub(r"deeplearning-platform-release", "", (ROOT / GCP).read_text())

    assert set(re.findall(r"projects/([\w-]+)/", text)) | set(re.findall(r"@([\w-]+)\.iam", text)) == {project}


def test_the_object_store_fits_into_shared_memory(cloud):
    """A store that is larger than /dev/shm falls back to disk, and says so only in a log."""
    docker = cloud["docker"]
    for options, commands in (
        ("head_run_options", "head_start_ray_commands"),
        ("worker_run_options", "worker_start_ray_commands"),
    ):
        (gigabytes,) = re.findall(r"--shm-size=(\d+)g", str(docker[options]))
        (store,) = re.findall(r"--object-store-memory=(\d+)", str(cloud[commands]))

        assert int(store) < int(gigabytes) * 2**30 / 1.5
