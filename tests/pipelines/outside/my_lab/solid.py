"""A reader of one more format of volumes: magic, shape, spacing, modality, patient, then 16-bit voxels."""

from __future__ import annotations

import math
import struct

import numpy as np

from crossdim.pipelines.readers.header_info import HeaderInfo
from crossdim.pipelines.readers.raw import RawItem, ReadRules
from crossdim.pipelines.readers.reader import Reader
from crossdim.pipelines.readers.volume_values import compute_range
from crossdim.storage_schema.errors import SampleError
from crossdim.storage_schema.sample import Sample
from crossdim.storage_schema.vocabulary import Modality

MAGIC = b"LABSOLID"
HEADER = struct.Struct("<8sIIIf2s8s")


def read_header(data: bytes, rules: ReadRules, *, whole: bool) -> HeaderInfo:
    _, depth, height, width, spacing_mm, modality, patient = HEADER.unpack_from(data)
    rules.allow_bytes(4 * depth * height * width, (depth, height, width))
    return HeaderInfo(
        format="labsolid",
        shape=(depth, height, width),
        spacing_mm=(spacing_mm,) * 3,
        modality=Modality(modality.decode()),
        patient_id=patient.decode().strip("\0") or None,
    )


def decode(item: RawItem) -> Sample:
    _, *shape, spacing_mm, modality, _ = HEADER.unpack_from(item.data)
    if len(item.data) != HEADER.size + 2 * math.prod(shape):
        raise SampleError("truncated", f"{shape} voxels need {2 * math.prod(shape)} bytes")
    volume_DHW = np.frombuffer(item.data, "<i2", offset=HEADER.size).reshape(shape).astype(np.float32)
    key, origin, patient = item.origin()
    affine = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])[[2, 1, 0, 3]]
    return Sample(
        key=key,
        presentation=None,
        array=volume_DHW[None],
        modality=Modality(modality.decode()),
        scaling=compute_range(volume_DHW, None),
        origin=origin,
        spacing_mm=(spacing_mm,) * 3,
        affine=tuple(tuple(float(v) for v in row) for row in affine),
        label=item.label,
        patient=patient,
    )


READER = Reader(
    name="labsolid",
    suffixes=(".solid",),
    kind="volume",
    matches=lambda head, _: head.startswith(MAGIC),
    read_header=read_header,
    decode=decode,
)
