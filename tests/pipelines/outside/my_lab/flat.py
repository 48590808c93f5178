"""A reader of one more format of images: magic, height, width, then bytes."""

from __future__ import annotations

import struct

import numpy as np

from crossdim.pipelines.readers.header_info import HeaderInfo
from crossdim.pipelines.readers.raw import RawItem, ReadRules
from crossdim.pipelines.readers.reader import Reader
from crossdim.storage_schema.errors import SampleError
from crossdim.storage_schema.sample import Sample, Scaling
from crossdim.storage_schema.vocabulary import Presentation

MAGIC = b"LABFLAT1"
HEADER = struct.Struct("<8sII")


def read_header(data: bytes, rules: ReadRules, *, whole: bool) -> HeaderInfo:
    if len(data) < HEADER.size:
        raise SampleError("truncated", f"the file has {len(data)} bytes; its header alone has {HEADER.size}")
    _, height, width = HEADER.unpack_from(data)
    rules.allow_values(height * width, (height, width))
    return HeaderInfo(format="labflat", shape=(height, width))


def decode(item: RawItem) -> Sample:
    _, height, width = HEADER.unpack_from(item.data)
    if len(item.data) != HEADER.size + height * width:
        raise SampleError("truncated", f"{height}x{width} pixels need {height * width} bytes")
    key, origin, patient = item.origin()
    return Sample(
        key=key,
        presentation=Presentation.IMAGE,
        array=np.frombuffer(item.data, np.uint8, offset=HEADER.size).reshape(1, height, width),
        modality=item.modality,
        scaling=Scaling(low=0, high=255),
        origin=origin,
        label=item.label,
        patient=patient,
    )


READER = Reader(
    name="labflat",
    suffixes=(".flat",),
    kind="image",
    matches=lambda head, _: head.startswith(MAGIC),
    read_header=read_header,
    decode=decode,
)
