"""What every method must keep to. A method's test file inherits this and names its config and its samples."""

from __future__ import annotations

import io
import math
import pickle

import numpy as np
import pytest
import torch

from crossdim.storage_schema.sample import Sample
from crossdim.storage_schema.vocabulary import Presentation
from crossdim.training.backbones import load_encoder, serialise_encoder
from crossdim.training.config.pretraining import Pretraining, read_config
from crossdim.training.data.collate import Batch, collate
from crossdim.training.data.order import rng_at
from crossdim.training.methods.base import Method, MethodConfig, Step, total_of


class MethodSuite:
    """Inherit, and provide the two fixtures."""

    @pytest.fixture
    def config(self) -> MethodConfig:
        raise NotImplementedError

    @pytest.fixture
    def samples(self) -> dict[Presentation, list[Sample]]:
        raise NotImplementedError

    @staticmethod
    def batch(config: MethodConfig, samples: list[Sample], first: int = 0) -> Batch:
        views = [config.draw(sample, None, rng_at(0, first + i)) for i, sample in enumerate(samples)]
        presentation = samples[0].presentation
        assert presentation is not None
        return collate(views, [s.key for s in samples], presentation, len(samples))

    @staticmethod
    def build(config: MethodConfig, seed: int = 0) -> Method:
        torch.manual_seed(seed)
        return config.build()

    def test_terms_are_finite_and_sum_to_the_total(self, config: MethodConfig, samples: dict[Presentation, list[Sample]]) -> None:
        method = self.build(config)
        for group in samples.values():
            losses = method(self.batch(config, group), Step(index=0, total=2, seed=0)).losses
            assert all(math.isfinite(term.item()) for term in losses.values())
            assert total_of(losses).item() == pytest.approx(sum(term.item() for term in losses.values()), abs=1e-6)

    @pytest.mark.integration
    def test_every_parameter_has_a_gradient_in_every_step(
        self, config: MethodConfig, samples: dict[Presentation, list[Sample]]
    ) -> None:
        """Ranks that disagree on which parameters took part would wait for each other for ever."""
        for index in range(3):
            for group in samples.values():
                method = self.build(config)
                total_of(method(self.batch(config, group), Step(index=index, total=3, seed=0)).losses).backward()
                assert [name for name, p in method.named_parameters() if p.grad is None] == []

    @pytest.mark.integration
    def test_equal_seed_position_and_step_give_equal_bits(
        self, config: MethodConfig, samples: dict[Presentation, list[Sample]]
    ) -> None:
        for group in samples.values():
            runs = [self.build(config)(self.batch(config, group), Step(index=1, total=2, seed=5)).losses for _ in range(2)]
            assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])

    def test_another_position_gives_other_views(self, config: MethodConfig, samples: dict[Presentation, list[Sample]]) -> None:
        for group in samples.values():
            one, two = self.batch(config, group), self.batch(config, group, first=100)
            assert any(not torch.equal(one.tensors[name], two.tensors[name]) for name in one.tensors)

    def test_the_config_survives_pickling_and_json(self, config: MethodConfig) -> None:
        run = Pretraining(method=config, steps=1, global_batch=1)
        assert pickle.loads(pickle.dumps(config)) == config
        assert read_config(run.document(), "test") == run

    def test_the_encoder_reloads_from_its_spec_alone(
        self, config: MethodConfig, samples: dict[Presentation, list[Sample]]
    ) -> None:
        method = self.build(config).eval()
        encoder, spec = load_encoder(io.BytesIO(serialise_encoder(method.encoder.state_dict(), method.encoder_spec)))
        for group in samples.values():
            x = torch.from_numpy(config.whole(group[0], None)["x"])[None]
            assert not any(side % spec.side_multiple for side in x.shape[2:])
            found = encoder(x)
            assert torch.equal(found, method.encoder(x))
            assert found.shape[1] == spec.num_features

    def test_every_weight_is_initialised(self, config: MethodConfig) -> None:
        """Memory is handed out full of NaN while the network is built: a weight nobody sets would keep it."""
        filled = torch.utils.deterministic.fill_uninitialized_memory
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = True
        try:
            method = config.build()
        finally:
            torch.use_deterministic_algorithms(False)
            torch.utils.deterministic.fill_uninitialized_memory = filled
        assert [name for name, tensor in method.state_dict().items() if not torch.isfinite(tensor).all()] == []

    def test_views_are_float32_and_alike_for_all_samples(
        self, config: MethodConfig, samples: dict[Presentation, list[Sample]]
    ) -> None:
        for group in samples.values():
            shapes = {
                tuple((k, v.shape, v.dtype) for k, v in config.draw(s, None, np.random.default_rng(0)).items()) for s in group
            }
            assert len(shapes) == 1
            pixels = [dtype for name, shape, dtype in shapes.pop() if len(shape) >= 3 and name != "source"]
            assert set(pixels) <= {np.dtype(np.float32)}
