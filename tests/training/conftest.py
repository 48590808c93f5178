"""Two small published datasets that the tests of training share."""

from __future__ import annotations

import pytest

from crossdim.foundation.bucket import Bucket
from tests.training.published import images, publish, superpatches


@pytest.fixture(scope="session")
def image_data(tmp_path_factory: pytest.TempPathFactory) -> Bucket:
    """30 pseudo-3D samples of two classes."""
    bucket = Bucket(str(tmp_path_factory.mktemp("flat")))
    publish(bucket, images(30), "flat")
    return bucket


@pytest.fixture(scope="session")
def volume_data(tmp_path_factory: pytest.TempPathFactory) -> Bucket:
    """20 superpatches of two classes."""
    bucket = Bucket(str(tmp_path_factory.mktemp("solid")))
    publish(bucket, superpatches(20), "solid")
    return bucket
