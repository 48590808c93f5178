"""deploy: fields and types that their readers know, and what our jobs need of them. Nothing is started."""

from __future__ import annotations

import copy
import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import jsonschema
import pytest
import ray
import yaml

from crossdim.training.cli import build_parser
from tests.system.test_job_submit import HEAD, environment

ROOT = Path(__file__).parents[2]
KUBERAY = ROOT / "deploy/kuberay"
SCHEMA = jsonschema.Draft202012Validator(yaml.safe_load((Path(__file__).parent / "crds/ray.io_v1.yaml").read_text()))
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
RAY_VERSION = re.findall(r"rayproject/ray:([\d.]+)-", (ROOT / "ray_cluster.yaml").read_text())[0]


def manifest(name: str) -> dict:
    return yaml.safe_load((KUBERAY / name).read_text())


def spec() -> dict:
    return manifest("raycluster.yaml")["spec"]


def pods() -> dict[str, dict]:
    workers = {group["groupName"]: group["template"]["spec"] for group in spec()["workerGroupSpecs"]}
    return {"head": spec()["headGroupSpec"]["template"]["spec"], **workers}


def containers() -> dict[str, dict]:
    return {name: pod["containers"][0] for name, pod in pods().items()}


def places(node: object, path: tuple = ()) -> list[tuple]:
    """The path of every field of a document."""
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    below = [place for key, child in children for place in places(child, (*path, key))]
    return ([path] if path and isinstance(path[-1], str) else []) + below


@pytest.mark.parametrize("name", ["raycluster.yaml", "rayjob.yaml"])
def test_the_manifests_hold_known_fields_of_the_right_type(name):
    """The API server drops a field that it does not know, and says so only to those who ask."""
    SCHEMA.validate(manifest(name))


#: Maps whose keys are the user's own words.
FREE = {"rayStartParams"}


@pytest.mark.parametrize("name", ["raycluster.yaml", "rayjob.yaml"])
def test_every_misspelt_field_is_refused(name):
    """Each field of the manifests in turn gets a letter too many; if one passed, the test above would say nothing of it."""
    document = manifest(name)
    for *parents, last in places(document):
        if parents and parents[-1] in FREE:
            continue
        broken = copy.deepcopy(document)
        place = broken
        for parent in parents:
            place = place[parent]
        place[last + "s"] = place.pop(last)

        assert not SCHEMA.is_valid(broken), (*parents, last)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("rayVersion", 2.6),
        ("authOptions/mode", "tokens"),
        ("headGroupSpec/rayStartParams/num-cpus", 0),
        ("workerGroupSpecs/1/minReplicas", "0"),
        ("workerGroupSpecs/1/groupName", "GPU_train"),
        ("workerGroupSpecs/1/template/spec/containers/0/resources/limits/memory", "160GB"),
        ("headGroupSpec/template/spec/containers/0/livenessProbe/httpGet/port", "52365"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(path, value):
    """Unquoted numbers and units of another world are what YAML invites."""
    document = manifest("raycluster.yaml")
    place = document["spec"]
    *parents, last = (int(part) if part.isdigit() else part for part in path.split("/"))
    for parent in parents:
        place = place[parent]
    place[last] = value

    assert not SCHEMA.is_valid(document)


def test_the_head_does_no_work_and_groups_start_at_nothing():
    """No GPU is paid for while nobody trains, and no decoder runs beside the cluster's bookkeeping."""
    groups = {group["groupName"]: group for group in spec()["workerGroupSpecs"]}

    assert spec()["enableInTreeAutoscaling"] is True
    assert spec()["authOptions"] == {"mode": "token"}
    assert {spec()["headGroupSpec"]["rayStartParams"][name] for name in ("num-cpus", "num-gpus")} == {"0"}
    assert all(group["replicas"] == group["minReplicas"] == 0 < group["maxReplicas"] for group in groups.values())
    limits = {name: container["resources"]["limits"] for name, container in containers().items()}
    assert {name for name, limit in limits.items() if "nvidia.com/gpu" in limit} == {"gpu-train"}
    assert {name: container["resources"]["requests"] for name, container in containers().items()} == limits


def test_every_container_is_probed_and_locked():
    """A pod that hangs is replaced; a decoder that is taken over by a hostile file finds no privileges and no cluster token."""
    for name, container in containers().items():
        assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)
        assert container["securityContext"]["runAsNonRoot"] is True
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        # The head's autoscaler asks Kubernetes for pods; workers have nothing to ask.
        assert pods()[name].get("automountServiceAccountToken", True) is (name == "head")


def test_the_object_store_of_every_pod_fits_into_its_shared_memory():
    """A store that is larger than /dev/shm falls back to disk, and says so only in a log."""
    starts = {"head": spec()["headGroupSpec"], **{group["groupName"]: group for group in spec()["workerGroupSpecs"]}}
    for name, pod in pods().items():
        (volume,) = pod["volumes"]
        (mount,) = containers()[name]["volumeMounts"]
        store = int(starts[name]["rayStartParams"]["object-store-memory"])

        assert (mount["name"], mount["mountPath"]) == (volume["name"], "/dev/shm")
        assert store < int(volume["emptyDir"]["sizeLimit"].removesuffix("Gi")) * 2**30 / 1.5


def test_one_ray_and_one_crossdim_in_every_image_and_unit():
    """The operator's rayVersion, the tags of the pods and the image they are built from name the versions that were tested."""
    recipe = (ROOT / "deploy/Dockerfile").read_text()
    tags = {image.rpartition(":")[2] for image in re.findall(r"registry\.\S+", recipe)}

    assert spec()["rayVersion"] == RAY_VERSION
    assert f"FROM rayproject/ray:{RAY_VERSION}-py311-${{VARIANT}}" in recipe
    for text in (recipe, (ROOT / "deploy/crossdim-ray.service").read_text()):
        assert f'"ray[data,default,train]=={RAY_VERSION}"' in text
    assert f'"crossdim[all]=={VERSION}"' in text
    assert tags == {f"{VERSION}-ray{RAY_VERSION}-{variant}" for variant in ("gpu", "cpu")}
    assert {c["image"] for c in containers().values()} == set(re.findall(r"registry\.\S+", recipe))


@pytest.mark.parametrize("name", ["README.md", "gcp.yaml", "local.yaml", "slurm.sh"])
def test_every_command_that_is_shown_is_understood(name):
    """What people copy first is the line at the head of a file."""
    text = re.sub(r"\\\n#?\s*", "", (ROOT / "deploy" / name).read_text())
    lines = re.findall(r"python -m training (pretrain --.*)", text)

    assert lines
    for line in lines:
        assert build_parser().parse_args(shlex.split(line)).gpu


def test_the_job_runs_on_that_cluster_with_a_line_that_pretrain_reads():
    """A flag that was renamed is found here, and not by a pod that waited for its GPU."""
    job = manifest("rayjob.yaml")["spec"]
    python, flag, module, *line = shlex.split(job["entrypoint"])
    arguments = build_parser().parse_args(line)
    (group,) = (group for group in spec()["workerGroupSpecs"] if group["groupName"] == "gpu-train")
    gpus = int(containers()["gpu-train"]["resources"]["limits"]["nvidia.com/gpu"])

    assert (python, flag, module) == ("python", "-m", "training")
    assert job["clusterSelector"]["ray.io/cluster"] == manifest("raycluster.yaml")["metadata"]["name"]
    assert arguments.gpu
    assert arguments.workers[1] == group["maxReplicas"] * gpus


#: Three answers that are 5 s late: a busy machine is not a dead one.
HEALTH = {
    "RAY_health_check_initial_delay_ms": "5000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "5000",
    "RAY_health_check_failure_threshold": "3",
}
SLURM, RAYCLUSTER = "deploy/slurm.sh", "deploy/kuberay/raycluster.yaml"
HEADS = ("ray_cluster.yaml", "deploy/gcp.yaml", "deploy/local.yaml", RAYCLUSTER, SLURM, f"deploy/{HEAD}")


def head_environment(name: str) -> dict[str, str]:
    """What Ray finds in its environment where this file starts a head; a shell is asked wherever one will be."""
    if name.endswith(HEAD):
        return environment(HEAD)
    if name == RAYCLUSTER:
        return {variable["name"]: variable["value"] for variable in containers()["head"]["env"]}
    text = (ROOT / name).read_text()
    if name == SLURM:
        start = "\n".join(re.findall(r"^export RAY_.*$", text[: text.index("ray start --head")], re.MULTILINE)) + "; ray"
    else:
        (start,) = (command for command in yaml.safe_load(text)["head_start_ray_commands"] if "ray start" in command)
    line = ["bash", "-c", f"ray() {{ env; }}; {start}"]
    said = subprocess.run(line, env={}, capture_output=True, text=True, timeout=10, check=True).stdout
    return dict(variable.split("=", 1) for variable in said.splitlines())


@pytest.mark.parametrize("name", HEADS)
def test_every_head_gives_a_silent_machine_up_at_the_same_time(name):
    """What is true of a run on one kind of cluster, and measured there, is true on the others."""
    settings = head_environment(name).items()

    assert {key: value for key, value in settings if "health_check" in key} == HEALTH


def test_ray_knows_the_health_checks():
    """A misspelt setting is ignored without a word, and a lost machine costs a minute again."""
    server = (Path(ray.__file__).parent / "core/src/ray/gcs/gcs_server").read_bytes()

    assert [name for name in HEALTH if name.removeprefix("RAY_").encode() not in server] == []
    assert b"health_check_period_s" not in server
