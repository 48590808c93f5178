"""What a header says, before any voxel is read."""

from __future__ import annotations

from dataclasses import dataclass

from crossdim.storage_schema.vocabulary import Modality


@dataclass(frozen=True, kw_only=True, slots=True)
class VolumeTags:
    """What tells the volumes of one DICOM series apart where several slices lie at one position. None where it is not stated.

    Attributes:
        component: of a complex image, as a number: 1 magnitude, 2 phase, 3 real, 4 imaginary.
        echo_ms: EchoTime, or the number of the echo.
        temporal_position: TemporalPositionIdentifier.
        b_value: of diffusion, in s/mm².
        gradient: direction of diffusion, (3,).
        trigger_ms: TriggerTime.
        acquisition: AcquisitionNumber.
        acquired_s: AcquisitionTime, in seconds of the day.
        instance: InstanceNumber.
    """

    component: int | None = None
    echo_ms: float | None = None
    temporal_position: int | None = None
    b_value: float | None = None
    gradient: tuple[float, ...] | None = None
    trigger_ms: float | None = None
    acquisition: int | None = None
    acquired_s: float | None = None
    instance: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class SliceHeader:
    """One DICOM file of a series: what decides whether, and where, it belongs into a volume. Millimetres are DICOM's LPS."""

    rows: int
    columns: int
    frames: int = 1
    samples_per_pixel: int = 1
    photometric: str = "MONOCHROME2"
    inverted: bool = False  # whether the lowest value is meant to be white
    float_pixels: bool = False
    sop_class: str = ""
    segmentation: bool = False  # whether its numbers are labels
    mosaic: bool = False
    position_mm: tuple[float, ...] | None = None
    position_decimals: tuple[int, ...] | None = None  # digits behind the point that the position is written with
    orientation: tuple[float, ...] | None = None
    spacing_mm: tuple[float, ...] | None = None  # between rows, between columns
    thickness_mm: float | None = None  # from one slice to the next where that is stated, else of this one
    localizer: bool = False  # whether it says that it is a scout
    frames_fault: str = ""  # why several frames make no volume
    tags: VolumeTags = VolumeTags()


@dataclass(frozen=True, kw_only=True, slots=True)
class HeaderInfo:
    """One file, by its header.

    Attributes:
        format: that of the reader (``Reader.format_name``).
        shape: (H, W) of a picture, (D, H, W) of a volume.
        spacing_mm: along the axes of ``shape``, where the header tells.
        modality: where the header states one; OT for a word that we have no name for.
        patient_id: what tells one DICOM patient from another (see ``patient_identity``), and with ``study`` and ``series``
            (UIDs, empty where the header has none) what a series is told by. They may identify a patient: they are hashed with
            the dataset's key before anything is written.
        patient_names: what else names the patient, as written: PatientName, PatientID. For comparison, and never written.
        burned_in_annotation: whether the header says that text is burned into the pixels.
        slice: one slice of a series, as in DICOM.
        affine: of a volume in one file, such as multi-frame DICOM: voxel (x, y, z, 1) to millimetres (right, anterior, superior),
            row by row.
        plain: whether a volume's file holds one frame of numbers that stand for themselves, as labels do.
        labels: whether a volume's header says that its numbers are labels.
    """

    format: str
    shape: tuple[int, ...]
    spacing_mm: tuple[float, ...] | None = None
    modality: Modality | None = None
    patient_id: str | None = None
    patient_names: tuple[str, ...] = ()
    study: str = ""
    series: str = ""
    burned_in_annotation: bool | None = None
    slice: SliceHeader | None = None
    affine: tuple[tuple[float, ...], ...] | None = None
    plain: bool = False
    labels: bool = False
