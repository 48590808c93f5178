"""Bytes to samples. The only package that sees (x, y, z): what leaves it is (C, H, W) or (C, D, H, W)."""

from __future__ import annotations

from collections.abc import Callable

from crossdim.pipelines.readers import dicom_image, nifti, raster, series
from crossdim.pipelines.readers.raw import RawItem
from crossdim.storage_schema.sample import Sample

#: Of what decoders make of a file: a new number wherever values or places of a file that was read before change.
DECODING_VERSION = 2
#: How each kind of input is decoded. A new format is a module and a line here.
DECODERS: dict[str, Callable[[RawItem], Sample]] = {
    "png": raster.decode,
    "jpeg": raster.decode,
    "dicom": dicom_image.decode,
    "dicom-series": series.decode,
    "nifti": nifti.decode,
}
