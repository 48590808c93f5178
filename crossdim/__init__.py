"""Cross-dimensional medical encoders from object storage full of 2D images and 3D volumes.

    import crossdim

    dataset = crossdim.open("s3://lab/xray")                       # a published dataset
    for batch in dataset.loader(batch_size=8, crop=(16, 64, 64)):  # tensors, in an order that can be resumed
        batch["image"], batch["label"], batch["key"]
    encoder = crossdim.load_encoder("s3://lab/runs/a")             # an encoder that crossdim pretrain has trained
    features = encoder.embed(dataset[0])                           # (1, F)

Names are imported when they are first used: ``import crossdim`` itself loads no other package.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from crossdim.storage_schema.errors import CrossdimError
    from crossdim.storage_schema.pseudo3d import Pseudo3D
    from crossdim.training.api.batch import collate
    from crossdim.training.api.dataset import Dataset
    from crossdim.training.api.dataset import open_dataset as open
    from crossdim.training.api.encoder import Encoder, load_encoder
    from crossdim.training.api.loader import Loader
    from crossdim.training.api.mixture import Mix, mix
    from crossdim.training.api.pseudo3d import fold, unroll
    from crossdim.training.api.sample import DatasetSample
    from crossdim.training.extensions import load_extension
    from crossdim.training.layers.acs import ACSConv, MeanACSConv, SoftACSConv
    from crossdim.training.layers.conv25d import Conv25D
    from crossdim.training.layers.convert import convert
    from crossdim.training.layers.crossd import CrossDConv
    from crossdim.training.layers.kernel_inflation import inflate_kernel

__version__ = "0.1.0"

__all__ = [
    "ACSConv",
    "Conv25D",
    "CrossDConv",
    "CrossdimError",
    "Dataset",
    "DatasetSample",
    "Encoder",
    "Loader",
    "MeanACSConv",
    "Mix",
    "Pseudo3D",
    "SoftACSConv",
    "collate",
    "convert",
    "fold",
    "inflate_kernel",
    "load_encoder",
    "load_extension",
    "mix",
    "open",
    "unroll",
]

#: Public name -> (module, name in it).
_PUBLIC = {
    "ACSConv": ("crossdim.training.layers.acs", "ACSConv"),
    "Conv25D": ("crossdim.training.layers.conv25d", "Conv25D"),
    "CrossDConv": ("crossdim.training.layers.crossd", "CrossDConv"),
    "CrossdimError": ("crossdim.storage_schema.errors", "CrossdimError"),
    "Dataset": ("crossdim.training.api.dataset", "Dataset"),
    "DatasetSample": ("crossdim.training.api.sample", "DatasetSample"),
    "Encoder": ("crossdim.training.api.encoder", "Encoder"),
    "Loader": ("crossdim.training.api.loader", "Loader"),
    "MeanACSConv": ("crossdim.training.layers.acs", "MeanACSConv"),
    "Mix": ("crossdim.training.api.mixture", "Mix"),
    "Pseudo3D": ("crossdim.storage_schema.pseudo3d", "Pseudo3D"),
    "SoftACSConv": ("crossdim.training.layers.acs", "SoftACSConv"),
    "collate": ("crossdim.training.api.batch", "collate"),
    "convert": ("crossdim.training.layers.convert", "convert"),
    "fold": ("crossdim.training.api.pseudo3d", "fold"),
    "inflate_kernel": ("crossdim.training.layers.kernel_inflation", "inflate_kernel"),
    "load_encoder": ("crossdim.training.api.encoder", "load_encoder"),
    "load_extension": ("crossdim.training.extensions", "load_extension"),
    "mix": ("crossdim.training.api.mixture", "mix"),
    "open": ("crossdim.training.api.dataset", "open_dataset"),
    "unroll": ("crossdim.training.api.pseudo3d", "unroll"),
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used.

    Raises:
        AttributeError: if there is none of this name.
        UsageError: if it needs a package of an extra that is not installed.
    """
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    try:
        value = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        from crossdim.foundation.extras import explain_import_error

        if lack := explain_import_error(error, f"{__name__}.{name}"):
            raise lack from error
        raise
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
