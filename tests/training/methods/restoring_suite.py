"""What the methods that restore volumes share in their tests: samples, and equal terms."""

from __future__ import annotations

import pytest
import torch

from crossdim.storage_schema.sample import Sample
from crossdim.storage_schema.vocabulary import Presentation
from crossdim.training.data.order import rng_at
from crossdim.training.methods.base import MethodConfig
from crossdim.training.methods.restoration import Restorer
from crossdim.training.recipes import maesil as recipes
from tests.training.methods.method_suite import MethodSuite
from tests.training.published import images, superpatches


class RestoringSuite(MethodSuite):
    """Inherit, and provide the config."""

    @pytest.fixture
    def samples(self) -> dict[Presentation, list[Sample]]:
        return {Presentation.PSEUDO3D: images(3), Presentation.SUPERPATCH: superpatches(3)}

    def test_all_methods_see_the_same_voxels(self, config: MethodConfig, samples: dict[Presentation, list[Sample]]) -> None:
        """Equal terms: what a position shows does not depend on the method."""
        reference = recipes.tiny().method
        for group in samples.values():
            for sample in group:
                mine, theirs = (c.draw(sample, None, rng_at(3, 7))["x"] for c in (config, reference))
                assert (mine == theirs).all()

    def test_what_is_restored_is_a_volume_in_unit_range(
        self, config: MethodConfig, samples: dict[Presentation, list[Sample]]
    ) -> None:
        method = self.build(config).eval()
        assert isinstance(method, Restorer)
        for group in samples.values():
            x = torch.from_numpy(config.whole(group[0], None)["x"])[None]
            restored = method.reconstruct(x)
            assert restored is not None
            assert restored.shape == x.shape
            assert 0 <= float(restored.detach().min()) <= float(restored.detach().max()) <= 1
