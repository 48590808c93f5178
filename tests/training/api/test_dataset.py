"""Published datasets as Python objects."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import crossdim
from crossdim.foundation.bucket import Bucket, StoreOptions
from crossdim.storage_schema.errors import RunError, StorageError, UsageError
from crossdim.storage_schema.pseudo3d import Pseudo3D
from tests.training.published import as_image, images, publish, superpatches


def test_a_sample_is_what_was_published(image_data: Bucket, volume_data: Bucket) -> None:
    dataset, volumes = crossdim.open(image_data.url), crossdim.open(volume_data.url)
    for number, expected in enumerate(images(30)):
        sample = dataset[number]
        assert (sample.key, sample.label, sample.modality) == (expected.key, expected.label, expected.modality)
        assert np.array_equal(sample.array, expected.array)
        assert np.array_equal(sample.unit(), expected.unit())
    assert (sample.spacing_mm, sample.pseudo3d, sample.split, sample.source) == (None, Pseudo3D(), "train", "images/29.png")
    cube, expected = volumes[3], superpatches(20)[3]
    assert (cube.spacing_mm, cube.pseudo3d) == ((2.0, 2.0, 2.0), None)
    assert np.array_equal(cube.physical(), expected.scaling.physical(expected.array))


def test_a_sample_as_a_mapping_is_an_item_of_a_batch(image_data: Bucket) -> None:
    sample = crossdim.open(image_data.url)[1]
    assert list(sample) == ["image", "label", "key"]
    assert np.array_equal(sample["image"], sample.unit())
    assert (sample["label"], sample["key"]) == (sample.class_index, sample.key)
    assert sample == sample
    with pytest.raises(KeyError, match="image, label and key"):
        sample["lable"]


def test_numbers_count_from_both_ends(image_data: Bucket) -> None:
    dataset = crossdim.open(image_data.url)
    assert len(dataset) == 30
    assert dataset[-1].key == dataset[29].key == dataset[np.int64(29)].key
    assert [sample.key for sample in dataset] == dataset.table["key"].to_pylist()
    for number in (30, -31):
        with pytest.raises(IndexError, match=f"has 30 samples, 0 to 29; found number {number}"):
            dataset[number]
    with pytest.raises(TypeError, match=r"torch\.utils\.data\.Subset"):
        dataset[1:3]
    with pytest.raises(TypeError):
        dataset["0"]


def test_it_prints_itself_as_a_summary(image_data: Bucket, volume_data: Bucket) -> None:
    assert repr(crossdim.open(image_data.url)).splitlines() == [
        f"Dataset 'flat' at {image_data.url}: 30 pseudo-3D images, split train",
        "  shape   (1, 16, 20..29, 20..29), uint8",
        "  imaged  XR",
        "  labels  0: 15, 1: 15",
    ]
    assert repr(crossdim.open(volume_data.url, split=None)).splitlines()[0].endswith("20 superpatches, all splits")


def test_splits_and_classes(tmp_path: Path) -> None:
    """Numbers of classes are those of the whole dataset: what one split learns, another is asked."""
    samples = images(6, classes=3)
    publish(Bucket(str(tmp_path)), samples, "three", splits=["train", "test", "train", "train", "test", "test"])
    train, test, both = (crossdim.open(tmp_path, split=split) for split in ("train", "test", None))
    assert (len(train), len(test), len(both)) == (3, 3, 6)
    assert train.classes == test.classes == ("0", "1", "2")
    assert [sample.key for sample in test] == [samples[i].key for i in (1, 4, 5)]
    assert [sample.class_index for sample in test] == [1, 1, 2]
    assert test[0].split == "test"


def test_samples_without_a_label(tmp_path: Path) -> None:
    samples = images(2)
    publish(Bucket(str(tmp_path)), [samples[0], replace(samples[1], label=None)], "half")
    dataset = crossdim.open(tmp_path)
    assert [sample.label for sample in dataset] == ["0", None]
    assert [sample["label"] for sample in dataset] == [0, -1]
    assert repr(dataset).endswith("labels  0: 1, (none): 1")


def test_wrong_use_is_answered_with_what_is_right(image_data: Bucket, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown split 'tset'; did you mean test\?"):
        crossdim.open(image_data.url, split="tset")
    with pytest.raises(UsageError, match=r"unknown store option 'endpoint'; did you mean endpoint_url"):
        crossdim.open(image_data.url, endpoint="http://127.0.0.1")
    with pytest.raises(UsageError, match=r"^access_key needs secret_key beside it; .* name it with credentials_file$"):
        crossdim.open(image_data.url, access_key="k")
    with pytest.raises(StorageError, match="is not a published dataset"):
        crossdim.open(tmp_path)
    with pytest.raises(RunError, match="holds no sample of split test; it has train, and split=None opens all 30 samples"):
        crossdim.open(image_data.url, split="test")


def test_a_dataset_in_a_bucket(s3_endpoint: str, s3_client, tmp_path: Path) -> None:
    """Credentials as arguments or in a file; what travels to another process reads there too."""
    s3_client.create_bucket(Bucket="lab")
    store = StoreOptions(endpoint_url=s3_endpoint, access_key="k", secret_key="s", region="us-east-1")
    samples = images(5)
    publish(Bucket("s3://lab/set", store), samples, "remote")
    keys = tmp_path / "keys.ini"
    keys.write_text("[default]\naws_access_key_id = k\naws_secret_access_key = s\n")
    keys.chmod(0o600)
    for options in ({"access_key": "k", "secret_key": "s"}, {"credentials_file": str(keys)}):
        dataset = crossdim.open("s3://lab/set", endpoint_url=s3_endpoint, region="us-east-1", **options)
        assert np.array_equal(dataset[2].array, samples[2].array)
    assert "s3://lab/set" in repr(dataset)
    assert np.array_equal(pickle.loads(pickle.dumps(dataset))[4].array, samples[4].array)


@pytest.mark.parametrize("workers", [0, 2])
def test_torch_collates_samples_by_itself(volume_data: Bucket, workers: int) -> None:
    """A dataset is a map-style dataset of PyTorch; samples of one size need no function of ours."""
    dataset = crossdim.open(volume_data.url)
    loader = torch.utils.data.DataLoader(dataset, batch_size=8, num_workers=workers)
    batches = list(loader)
    assert [len(batch["key"]) for batch in batches] == [8, 8, 4]
    assert [key for batch in batches for key in batch["key"]] == dataset.table["key"].to_pylist()
    assert torch.equal(batches[0]["image"], torch.from_numpy(np.stack([dataset[i].unit() for i in range(8)])))
    assert batches[0]["label"].tolist() == [0, 1] * 4


def test_images_of_unequal_size_are_collated_by_ours(tmp_path: Path) -> None:
    publish(Bucket(str(tmp_path)), [as_image(sample) for sample in images(6)], "plain", {"images": {}})
    dataset = crossdim.open(tmp_path)
    loader = torch.utils.data.DataLoader(dataset, batch_size=6, collate_fn=crossdim.collate)
    (batch,) = loader
    assert batch["image"].shape == (6, 1, *dataset.shapes[:, 1:].max(axis=0))
    assert batch["size"].tolist() == dataset.shapes[:, 1:].tolist()
    assert batch["label"].dtype == torch.int64
    for image, (height, width), sample in zip(batch["image"], batch["size"], dataset, strict=True):
        assert np.array_equal(image[:, :height, :width], sample.unit())
        assert not image[:, height:].any()
        assert not image[:, :, width:].any()


def test_subsets_and_random_splits_of_torch(image_data: Bucket) -> None:
    dataset = crossdim.open(image_data.url)
    one, two = torch.utils.data.random_split(dataset, [20, 10], torch.Generator().manual_seed(0))
    assert {sample.key for part in (one, two) for sample in part} == set(dataset.table["key"].to_pylist())
