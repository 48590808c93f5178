"""Studies: arms that are fair, a table that says what was measured, and a line that goes on where it stopped."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from crossdim.cli import main
from crossdim.foundation.bucket import Bucket
from crossdim.storage_schema.errors import UsageError
from crossdim.storage_schema.pseudo3d import Pseudo3D
from crossdim.training.data.collate import collate
from crossdim.training.launch.worker import Source
from crossdim.training.launch.workers import Workers
from crossdim.training.methods.base import Step
from crossdim.training.methods.cdssl_p3d import CdsslP3D
from crossdim.training.methods.image_to_volume import Repeated, Unrolled
from crossdim.training.recipes import recipe
from crossdim.training.recipes.cdssl_p3d import tiny
from crossdim.training.run_dir.metrics import read_metrics
from crossdim.training.studies import STUDIES, study
from crossdim.training.studies.ablations import nearest_side
from crossdim.training.studies.base import DataSubset, Score, Study
from crossdim.training.studies.run import StudyConfig, run_study, short_names
from crossdim.training.studies.run_summary import RunSummary, summarise_run
from crossdim.training.studies.table import render_study
from crossdim.training.study_subjects import STUDY_SUBJECTS
from tests.training.published import images


def test_the_four_arms_differ_in_data_and_batch_alone() -> None:
    """Equal steps: as many samples of its own as the joint run gives a dimension. Equal samples: as many as it has in all."""
    arms = {arm.name: arm for arm in study("four-arms", tiny()).arms}
    joint = arms["joint"].config
    assert {name: (arm.data, arm.config.global_batch / joint.global_batch) for name, arm in arms.items()} == {
        "scratch": (DataSubset.NOTHING, 1),
        "2d-equal-steps": (DataSubset.IMAGES, 0.5),
        "2d-equal-samples": (DataSubset.IMAGES, 1),
        "3d-equal-steps": (DataSubset.VOLUMES, 0.5),
        "3d-equal-samples": (DataSubset.VOLUMES, 1),
        "joint": (DataSubset.BOTH, 1),
    }
    assert all(replace(arm.config, global_batch=joint.global_batch) == joint for arm in arms.values())


def test_a_batch_that_cannot_be_halved_is_refused() -> None:
    with pytest.raises(UsageError, match="global_batch is 7"):
        study("four-arms", replace(tiny(), global_batch=7))


def test_an_unknown_study_is_answered_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean four-arms"):
        study("four-arm", tiny())


def _look(step: int) -> dict[str, float]:
    """Of the encoder's features in two streams, of which volumes are the worse one; and of a projection, which does not count."""
    volumes = {"dimensions": 1.5, "rank_me": 20.0 - step, "alignment": 0.7, "uniformity": -0.5}
    images = {"dimensions": 3.0, "rank_me": 25.0, "alignment": 0.1, "uniformity": -2.0}
    found = {f"fixed/{stream}/encoder.{name}": v for stream, s in (("v", volumes), ("i", images)) for name, v in s.items()}
    return found | {"fixed/v/z0.rank_me": 1.0}


def _record(step: int) -> dict[str, object]:
    return {
        "loss": 10.0 - step,
        "counts": {"image": 3, "superpatch": 4},
        "monitors": {
            "image/evenness0": 0.5,
            "image/evenness1": 0.1 * (step + 1),
            "image/other": 0.0,
        }
        | (_look(step) if step in (4, 9) else {}),
        "step_s": 2.0,
        "voxels": 100 + step,
        "wait_s": 0.5,
    }


def test_the_course_of_a_run_is_its_edges_and_its_sums() -> None:
    found = summarise_run([_record(step) for step in range(20)])  # type: ignore[arg-type]
    assert found == RunSummary(
        steps=20,
        samples=140,
        voxels=110,
        loss_first=9.5,
        loss_last=-8.5,
        evenness=0.5,
        dimensions=1.5,
        rank_me=11.0,
        alignment=0.7,
        uniformity=-0.5,
        seconds=40.0,
        wait_share=0.25,
    )


def test_the_table_holds_mean_and_spread_and_says_what_is_not_there() -> None:
    runs = [
        RunSummary(
            steps=5,
            samples=9,
            voxels=2000,
            loss_first=1,
            loss_last=0,
            evenness=0.9,
            dimensions=4,
            rank_me=12,
            alignment=0.25,
            uniformity=float("nan"),
            seconds=5,
            wait_share=0.01,
        )
    ] * 2
    scores = [
        Score(arm=arm, seed=seed, dataset="d", measure="knn", value=0.5 + 0.1 * seed) for arm in ("a", "b") for seed in (0, 1)
    ]
    text = render_study("title", ["a", "b", "c"], {"a": runs}, scores)
    assert "over 2 seeds" in text
    assert "| a | 0.550 ± 0.071 |" in text
    assert "| c | none |" in text
    went = "| a | 5 | 9 | 2,000 | 1.000 ± 0.000 | 0.000 ± 0.000 | 0.90 ± 0.00 |"
    assert f"{went} 12.0 ± 0.0 | 4.0 ± 0.0 | 0.25 ± 0.00 | none | 1.00 ± 0.00 | 1.0% |" in text


def test_one_seed_has_no_spread() -> None:
    text = render_study("title", ["a"], {}, [Score(arm="a", seed=0, dataset="d", measure="knn", value=0.5)])
    assert "One seed, so without a spread" in text
    assert "| a | 0.500 |" in text


def test_datasets_are_called_by_their_folder_unless_two_are_called_alike() -> None:
    assert short_names(["s3://lab/ct", "s3://lab/xr/"]) == ["ct", "xr"]
    assert short_names(["s3://lab/ct", "s3://other/ct"]) == ["s3://lab/ct", "s3://other/ct"]


@pytest.mark.integration
def test_every_lift_is_an_arm_and_every_arm_can_be_drawn_and_trained() -> None:
    """Views of each arm go through the network once; what a view holds is where it should be."""
    config = tiny()
    [sample] = images(1)
    for arm in study("pseudo3d", config).arms:
        method = arm.config.method
        assert isinstance(method, CdsslP3D)
        views = method.draw(sample, Pseudo3D(), np.random.default_rng(0))
        assert all(side % 8 == 0 for name in ("view1", "local") for side in views[name].shape[-3:])
        batch = collate([views] * 3, ["a", "b", "c"], "pseudo3d", 3)
        assert all(term.isfinite() for term in method.build()(batch, Step(index=0, total=1, seed=0)).losses.values())


def test_sides_move_to_the_nearest_that_can_be_pooled() -> None:
    k6 = Unrolled(geometry=Pseudo3D(window=6, stride=6))
    assert nearest_side(k6, 64, 8) == 48
    assert nearest_side(k6, 96, 8) == 96
    assert nearest_side(Unrolled(geometry=Pseudo3D(window=4, stride=2)), 64, 8) == 66
    assert nearest_side(Repeated(), 60, 8) == 56


def test_a_method_without_lifts_is_refused() -> None:
    with pytest.raises(UsageError, match="maesil does not do"):
        study("pseudo3d", recipe("maesil:tiny"))


def test_restorers_share_everything_but_the_method() -> None:
    arms = study("restorers", recipe("maesil:tiny")).arms
    assert [arm.name for arm in arms] == ["maesil", "ae", "vae", "vqvae"]
    assert len({repr(replace(arm.config, method=arms[0].config.method)) for arm in arms}) == 1
    assert {repr(arm.config.method.crops) for arm in arms} == {repr(arms[0].config.method.crops)}  # type: ignore[attr-defined]


def test_restorers_of_an_unknown_size_are_refused() -> None:
    with pytest.raises(UsageError, match="takes maesil:small or maesil:tiny"):
        study("restorers", recipe("maesil"))


@pytest.mark.integration
def test_restoring_arms_are_evaluated_on_what_they_restore(
    volume_data: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three PSNRs and SSIM for the masked method, one of each for the others, compression for all; on another dataset too."""
    line = ["study", "restorers", "--recipe", "maesil:tiny", "--data", volume_data.url, "--out", str(tmp_path), "--json"]
    assert main([*line, "--steps", "1", "--seeds", "1", "--set", "global_batch=2"]) == 0
    scores = json.loads(capsys.readouterr().out)["scores"]
    measures = {arm: {s["measure"] for s in scores if s["arm"] == arm} for arm in ("maesil", "ae")}
    assert measures["ae"] >= {"knn", "linear", "compression", "unmasked psnr", "unmasked ssim"}
    assert measures["maesil"] >= measures["ae"] | {"masked psnr", "masked ssim", "hidden psnr"}
    assert all(np.isfinite(s["value"]) for s in scores)


@pytest.mark.integration
def test_what_one_dimension_taught_is_evaluated_in_the_other(image_data: Bucket, volume_data: Bucket, tmp_path: Path) -> None:
    """Trained on images, probed on volumes as well, by three probes; the other direction is another arm of the same study."""
    arms = {arm.data: arm for arm in study("four-arms", replace(recipe("cross-d:tiny"), steps=1, global_batch=8)).arms}
    assert {DataSubset.IMAGES, DataSubset.VOLUMES, DataSubset.BOTH} <= set(arms)
    study_config = StudyConfig(
        sources=(Source(bucket=image_data, weight=1.0), Source(bucket=volume_data, weight=1.0)),
        eval_sources=(),
        out=Bucket(str(tmp_path)),
        seeds=1,
        folds=2,
        weak=True,
        workers=Workers(least=0, most=0, use_gpu=False, address=None, quiet=True),
        threads=1,
    )
    document, _ = run_study(Study(title="one way", arms=(arms[DataSubset.IMAGES],)), study_config)
    found = {(s["dataset"], s["measure"]) for s in document["scores"]}
    assert found == {(Path(b.url).name, probe) for b in (image_data, volume_data) for probe in ("knn", "linear", "weak")}
    [run] = (tmp_path / arms[DataSubset.IMAGES].name).iterdir()
    assert read_metrics(Bucket(str(run)))[0]["counts"] == {"pseudo3d": 8}


def _line(out: Path, *data: Bucket) -> list[str]:
    line = ["study", "four-arms", "--recipe", "cdssl-p3d:tiny", "--data", *(bucket.url for bucket in data), "--out", str(out)]
    return [*line, "--steps", "1", "--seeds", "1", "--set", "global_batch=8", "--json"]


@pytest.mark.integration
def test_a_study_from_the_command_line_and_once_more(
    image_data: Bucket, volume_data: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every arm is a run of its own with the right data; asked again, nothing is trained twice and the table is the same."""
    assert main(_line(tmp_path, image_data, volume_data)) == 0
    document = json.loads(capsys.readouterr().out)
    assert {(s["arm"], s["dataset"], s["measure"]) for s in document["scores"]} == {
        (arm, Path(bucket.url).name, probe)
        for arm in document["arms"]
        for bucket in (image_data, volume_data)
        for probe in ("knn", "linear")
    }
    counts = {arm: read_metrics(Bucket(str(tmp_path / arm / "seed-0")))[0]["counts"] for arm in document["courses"]}
    assert counts == {
        "2d-equal-steps": {"pseudo3d": 4},
        "2d-equal-samples": {"pseudo3d": 8},
        "3d-equal-steps": {"superpatch": 4},
        "3d-equal-samples": {"superpatch": 8},
        "joint": {"pseudo3d": 4, "superpatch": 4},
    }
    state = tmp_path / "joint/seed-0/checkpoints/step-00000001/state.pt"
    before, table = state.stat().st_mtime_ns, (tmp_path / "study.md").read_text()
    assert main(_line(tmp_path, image_data, volume_data)) == 0
    assert state.stat().st_mtime_ns == before
    assert (tmp_path / "study.md").read_text() == table


def test_arms_without_data_are_refused_before_anything_starts(
    image_data: Bucket, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(_line(tmp_path, image_data)) == 1
    assert "3d-equal-steps, 3d-equal-samples would have no data" in capsys.readouterr().err
    assert not (tmp_path / "joint").exists()


def test_the_help_lists_every_study_that_exists(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(STUDY_SUBJECTS) == set(STUDIES)
    with pytest.raises(SystemExit):
        main(["study", "--help"])
    message = capsys.readouterr().out
    assert all(f"{name}:" in message for name in STUDIES)
