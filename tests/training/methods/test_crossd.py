"""Cross-D: the suite of every method, for the hybrid and for the supervised one, and what is their own."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from crossdim.storage_schema.errors import RunError
from crossdim.storage_schema.sample import Sample
from crossdim.storage_schema.vocabulary import Presentation
from crossdim.training.data.collate import collate
from crossdim.training.data.order import rng_at
from crossdim.training.methods.base import MethodConfig, Step
from crossdim.training.methods.crossd_supervised import UNKNOWN, CrossDSupervised
from crossdim.training.recipes.crossd import hybrid_tiny, supervised_tiny
from tests.training.methods.method_suite import MethodSuite
from tests.training.published import as_image, images, superpatches

STEP = Step(index=0, total=2, seed=0)
_SUPERVISED = supervised_tiny().method.with_labels(("0", "1"))


class _EitherSuite(MethodSuite):
    @pytest.fixture
    def samples(self) -> dict[Presentation, list[Sample]]:
        flat = images(4)
        return {
            Presentation.PSEUDO3D: flat,
            Presentation.IMAGE: [as_image(s) for s in flat],
            Presentation.SUPERPATCH: superpatches(4),
        }

    def test_images_stay_images_and_volumes_volumes(
        self, config: MethodConfig, samples: dict[Presentation, list[Sample]]
    ) -> None:
        shapes = {p: config.draw(group[0], None, rng_at(0, 0))["view1"].shape for p, group in samples.items()}
        assert shapes == {
            Presentation.PSEUDO3D: (1, 64, 64),
            Presentation.IMAGE: (1, 64, 64),
            Presentation.SUPERPATCH: (1, 32, 32, 32),
        }

    def test_stored_pseudo_3d_is_folded_back(self, config: MethodConfig, samples: dict[Presentation, list[Sample]]) -> None:
        for stored, plain in zip(samples[Presentation.PSEUDO3D], samples[Presentation.IMAGE], strict=True):
            one, two = config.draw(stored, None, rng_at(1, 2)), config.draw(plain, None, rng_at(1, 2))
            assert all(np.array_equal(one[name], two[name]) for name in one)

    def test_images_and_volumes_move_one_kernel_bank(
        self, config: MethodConfig, samples: dict[Presentation, list[Sample]]
    ) -> None:
        """Gradients of both dimensions reach the same weights; only images turn planes."""
        for presentation, turns in ((Presentation.PSEUDO3D, True), (Presentation.SUPERPATCH, False)):
            method = self.build(config)
            sum(method(self.batch(config, samples[presentation]), STEP).losses.values()).backward()  # type: ignore[union-attr]
            named = dict(method.encoder.named_parameters())
            banks = [p.grad for name, p in named.items() if name.endswith("weights_3d")]
            turned = [p.grad for name, p in named.items() if "rotation_params.3" in name]
            assert banks
            assert all(g is not None and g.abs().max() > 0 for g in banks)
            assert any(g is not None and g.abs().max() > 0 for g in turned) is turns


class TestCrossD(_EitherSuite):
    @pytest.fixture
    def config(self) -> MethodConfig:
        return hybrid_tiny().method


class TestCrossDSupervised(_EitherSuite):
    @pytest.fixture
    def config(self) -> MethodConfig:
        return _SUPERVISED

    def test_samples_without_a_known_class_add_nothing(
        self, config: MethodConfig, samples: dict[Presentation, list[Sample]]
    ) -> None:
        """Against the closed form: -log of the softmax at the label, over all samples; the stranger counts as 0."""
        flat = samples[Presentation.IMAGE]
        flat = [*flat[:3], dataclasses.replace(flat[3], label="neither")]
        method = self.build(config).eval()
        batch = self.batch(config, flat)
        assert batch.tensors["label"].tolist() == [0, 1, 0, UNKNOWN]
        scores = method.fc(method.encoder(batch.tensors["view1"]).mean(dim=(2, 3)))  # type: ignore[operator]
        logs = scores.double().softmax(dim=1).log()
        expected = -(logs[0, 0] + logs[1, 1] + logs[2, 0]) / 4
        outcome = method(batch, STEP)
        assert outcome.losses["cross_entropy"].item() == pytest.approx(expected.item(), abs=1e-5)
        assert outcome.monitors["labelled"].item() == 0.75

    def test_a_batch_without_any_class_is_no_trouble(
        self, config: MethodConfig, samples: dict[Presentation, list[Sample]]
    ) -> None:
        strangers = [dataclasses.replace(s, label=None) for s in samples[Presentation.IMAGE]]
        assert self.build(config)(self.batch(config, strangers), STEP).losses["cross_entropy"].item() == 0


def test_one_class_is_none() -> None:
    for classes in (("a",), ("a", "a"), ("a", "b", "a")):
        with pytest.raises(RunError, match="two different names or more"):
            CrossDSupervised(classes=classes)


def test_classes_that_are_not_named_are_the_labels_and_those_that_are_stay() -> None:
    assert _SUPERVISED.label_names() == ("0", "1")
    named = CrossDSupervised(classes=("b", "a"))
    assert named.with_labels(("a", "b", "c")) is named
    assert CrossDSupervised().with_labels(("a",)).label_names() == ()
    with pytest.raises(RunError, match="the labels of the datasets with which a run begins"):
        CrossDSupervised().build()


@pytest.mark.integration
def test_labels_are_learnt_by_one_bank_in_both_dimensions() -> None:
    """Discs and balls of two sizes: thirty updates on each, taken in turns, and the training error of both falls."""
    config = _SUPERVISED
    groups = [images(8), superpatches(8)]
    batches = [
        collate(
            [config.draw(s, None, rng_at(0, i)) for i, s in enumerate(group)],
            [s.key for s in group],
            str(group[0].presentation),
            8,
        )
        for group in groups
    ]
    torch.manual_seed(0)
    method = config.build()
    optimizer = torch.optim.AdamW(method.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        terms = [method(batch, STEP).losses["cross_entropy"] for batch in batches]
        torch.stack(terms).sum().backward()
        optimizer.step()
        losses.append([term.item() for term in terms])
    assert all(last < 0.3 * first for first, last in zip(losses[0], losses[-1], strict=True))
