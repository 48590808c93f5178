"""Requests to the decoder process: to read a header, to decode pixels and apply stages, to count values, to draw a preview."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from crossdim.foundation.settings import from_document, to_document
from crossdim.pipelines.decoder_process.client import ask
from crossdim.pipelines.decoder_process.limits import Limits, compute_limits
from crossdim.pipelines.decoder_process.messages import ARRAYS, Message, NotAMessage
from crossdim.pipelines.decoder_process.settings_text import serialise_settings
from crossdim.pipelines.readers.header_info import HeaderInfo
from crossdim.pipelines.readers.preview import PREVIEW_SIDE, Preview
from crossdim.pipelines.readers.raw import HEAD_BYTES, RawItem, ReadRules
from crossdim.pipelines.readers.registry import readers_of
from crossdim.pipelines.readers.signatures import Unread
from crossdim.pipelines.readers.source_values import SourceValues
from crossdim.pipelines.stages.stage import Stage
from crossdim.storage_schema.errors import CrossdimError
from crossdim.storage_schema.sample import Sample

#: Processor time that a preview may take: it is nothing that a dataset needs. Ours.
PREVIEW_CPU_S = 5
#: Fields of an item that its request holds by name; the rest is sent as bytes, and as text of settings.
_ITEM_FIELDS = [field.name for field in fields(RawItem) if field.name not in ("files", "rules")]


def probe(name: str, size: int, read: Callable[[int], bytes], rules: ReadRules) -> HeaderInfo | Unread:
    """Call :func:`crossdim.pipelines.readers.probe.probe` in the decoder process.

    Args:
        name: the file's name.
        size: of the file, in bytes.
        read: gives the first n bytes.
        rules: size guards.

    Returns:
        What the header says, or what the file is if it is of no format that is read.

    Raises:
        SampleError: as there, and rule ``decoder_died``, ``decoder_memory`` or ``decoder_slow``.
    """
    document = {"work": "probe", "name": name, "size": size, "rules": serialise_settings(rules)}

    def build(message: Message) -> tuple[bool, HeaderInfo | Unread]:
        answer = message.document
        return (True, Unread(format="", is_image=False)) if "more" in answer else (False, _read_found(answer))

    head = read(min(size, HEAD_BYTES)) if size else b""
    more, found = ask(document, [head], Limits(), build)
    if more:
        rules.allow_file(size)
        whole = read(size)
        _, found = ask(document, [whole], compute_limits(RawItem(uri=name, files=(whole,)), volume=False), build)
    if isinstance(found, HeaderInfo):
        rules.allow_file(size)
    return found


def _read_found(answer: dict[str, Any]) -> HeaderInfo | Unread:
    try:
        if "unread" in answer:
            return from_document(Unread, answer["unread"], subject="unread file")
        return from_document(HeaderInfo, answer.get("header"), subject="header")
    except CrossdimError as error:
        raise NotAMessage("the answer holds no header") from error


def decode(reader: str, item: RawItem, stages: Sequence[Stage] = ()) -> Sample:
    """Call ``READERS[reader].decode(item)`` and the stages after it, in the decoder process.

    Args:
        reader: key of ``READERS``.
        item: the input.
        stages: members of ``STAGES``, each applied to the result of the one before.

    Returns:
        The sample after the last stage.

    Raises:
        SampleError: as there, with the stage that raised it, and rule ``decoder_died``, ``decoder_memory`` or ``decoder_slow``.
    """
    document = {
        "work": "decode",
        **_describe_item(reader, item),
        "stages": [[stage.name, serialise_settings(stage)] for stage in stages],
    }
    return ask(document, item.files, _compute_item_limits(reader, item), _read_sample)


def _describe_item(reader: str, item: RawItem) -> dict[str, Any]:
    return {
        "reader": reader,
        "item": {name: to_document(getattr(item, name)) for name in _ITEM_FIELDS},
        "rules": serialise_settings(item.rules),
    }


def _compute_item_limits(reader: str, item: RawItem) -> Limits:
    return compute_limits(item, volume=reader in [one.name for one in readers_of("volume")])


def _read_sample(message: Message) -> Sample:
    answer = message.document
    try:
        kinds = {name: (np.dtype(str(kind)), tuple(int(n) for n in shape)) for name, (kind, shape) in answer["arrays"].items()}
        if any(dtype.kind not in ARRAYS[name] for name, (dtype, _) in kinds.items()):
            raise NotAMessage(f"the answer holds {kinds}, which are no arrays of a sample")
        arrays = dict(zip(kinds, message.arrays(*kinds.values()), strict=True))
        sample = from_document(Sample, answer["sample"] | {"array": arrays["array"]}, subject="sample")
        return replace(sample, outside=arrays["outside"]) if "outside" in arrays else sample
    except (AttributeError, KeyError, TypeError, ValueError, CrossdimError) as error:
        raise NotAMessage("the answer holds no sample") from error


def count_values(reader: str, item: RawItem) -> SourceValues:
    """Call ``READERS[reader].decode(item)`` in the decoder process, and count its values there.

    Args:
        reader: key of ``READERS``.
        item: the input.

    Returns:
        The histogram; the values themselves stay in the decoder process.

    Raises:
        SampleError: as :func:`decode`.
    """
    document = {"work": "values", **_describe_item(reader, item)}
    return ask(document, item.files, _compute_item_limits(reader, item), _read_values)


def _read_values(message: Message) -> SourceValues:
    try:
        return from_document(SourceValues, message.document.get("values"), subject="values")
    except CrossdimError as error:
        raise NotAMessage("the answer holds no values") from error


def preview(data: bytes) -> Preview:
    """Call :func:`crossdim.pipelines.readers.preview.read_preview` in the decoder process.

    Args:
        data: the file, or its beginning.

    Returns:
        Header fields and a small picture, as far as they can be read.

    Raises:
        SampleError: rule ``decoder_died``, ``decoder_memory`` or ``decoder_slow``.
    """
    limits = replace(compute_limits(RawItem(uri="", files=(data,)), volume=False), cpu_seconds=PREVIEW_CPU_S)
    return ask({"work": "preview"}, [data], limits, _read_preview)


def _read_preview(message: Message) -> Preview:
    try:
        fields, shapes = message.document["fields"], message.document["shapes"]
        kinds = [(np.dtype(np.uint8), tuple(int(side) for side in shape)) for shape in shapes]
        if any(len(shape) not in (2, 3) or max(shape) > PREVIEW_SIDE for _, shape in kinds):
            raise NotAMessage(f"the answer holds pictures of {shapes}, which are no previews")
        pictures = message.arrays(*kinds) if kinds else [None]
        return Preview(fields={str(name): str(value) for name, value in fields.items()}, picture=pictures[0])
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise NotAMessage("the answer holds no preview") from error
