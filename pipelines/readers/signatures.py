"""Formats that are not read, recognised by their first bytes or else by their names, so that no images are left out silently."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Unread:
    """A file that is not read.

    Attributes:
        format: what it is. One of the names below: never a text taken from the file or its name.
        is_image: whether it holds, or may hold, images.
    """

    format: str
    is_image: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class _Signature:
    """A format by its ``magic`` at ``offset``, and by the endings of its names in lower case."""

    name: str
    suffixes: tuple[str, ...] = ()
    magic: tuple[bytes, ...] = ()
    offset: int = 0


TIFF_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_HDF5 = (b"\x89HDF\r\n\x1a\n",)
_FTYP = 4

#: Formats that hold, or may hold, images. Of several with one magic, the one whose ending fits; otherwise the first.
IMAGES = (
    _Signature(name="SVS", suffixes=(".svs",), magic=TIFF_MAGIC),
    _Signature(name="NDPI", suffixes=(".ndpi", ".ndpis"), magic=TIFF_MAGIC),
    _Signature(name="SCN", suffixes=(".scn",), magic=TIFF_MAGIC),
    _Signature(name="QPTIFF", suffixes=(".qptiff",), magic=TIFF_MAGIC),
    _Signature(name="BIF", suffixes=(".bif",), magic=TIFF_MAGIC),
    _Signature(name="Philips TIFF", magic=TIFF_MAGIC),
    _Signature(name="LSM", suffixes=(".lsm", ".stk"), magic=TIFF_MAGIC),
    _Signature(name="JPEG XR", suffixes=(".jxr", ".wdp"), magic=(b"II\xbc\x01",)),
    _Signature(name="GIF", suffixes=(".gif",), magic=(b"GIF87a", b"GIF89a")),
    _Signature(
        name="JPEG 2000", suffixes=(".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc"), magic=(b"\0\0\0\x0cjP  ", b"\xffO\xffQ")
    ),
    _Signature(name="JPEG XL", suffixes=(".jxl",), magic=(b"\0\0\0\x0cJXL ",)),
    _Signature(name="HEIF", suffixes=(".heic", ".heif"), magic=(b"ftyphei", b"ftyphev", b"ftypmif1", b"ftypmsf1"), offset=_FTYP),
    _Signature(name="AVIF", suffixes=(".avif",), magic=(b"ftypavi",), offset=_FTYP),
    _Signature(
        name="PNM",
        suffixes=(".pgm", ".ppm", ".pbm", ".pnm", ".pam"),
        magic=(b"P5\n", b"P6\n", b"P4\n", b"P2\n", b"P3\n", b"P7\n"),
    ),
    _Signature(name="PFM", suffixes=(".pfm",), magic=(b"Pf\n", b"PF\n")),
    _Signature(name="OpenEXR", suffixes=(".exr",), magic=(b"v/1\x01",)),
    _Signature(name="Radiance HDR", suffixes=(".rgbe",), magic=(b"#?RADIANCE", b"#?RGBE")),
    _Signature(name="Photoshop", suffixes=(".psd", ".psb"), magic=(b"8BPS",)),
    _Signature(name="TGA", suffixes=(".tga",)),
    _Signature(name="PCX", suffixes=(".pcx",)),
    _Signature(name="ICO", suffixes=(".ico",)),
    _Signature(name="FITS", suffixes=(".fits", ".fit", ".fts"), magic=(b"SIMPLE  =",)),
    _Signature(name="raw voxels", suffixes=(".raw", ".zraw", ".raw.gz", ".voi", ".vol")),
    _Signature(name="HDF5", suffixes=(".h5", ".hdf5", ".hdf", ".he5", ".nxs"), magic=_HDF5),
    _Signature(name="netCDF", suffixes=(".nc", ".cdf"), magic=(b"CDF\x01", b"CDF\x02", b"CDF\x05", *_HDF5)),
    _Signature(name="MINC", suffixes=(".mnc", ".mnc2", ".mnc.gz"), magic=(*_HDF5, b"CDF\x01", b"CDF\x02")),
    _Signature(name="Imaris", suffixes=(".ims",), magic=_HDF5),
    _Signature(name="zip archive", suffixes=(".zip",), magic=_ZIP),
    _Signature(name="NumPy archive", suffixes=(".npz",), magic=_ZIP),
    _Signature(name="MATLAB", suffixes=(".mat",), magic=(b"MATLAB 5.0 MAT", b"MATLAB 7", *_HDF5)),
    _Signature(name="Analyze or NIfTI pair", suffixes=(".img", ".img.gz", ".hdr.gz")),
    _Signature(name="FreeSurfer MGH", suffixes=(".mgh", ".mgz", ".mgh.gz")),
    _Signature(name="AFNI", suffixes=("+orig.head", "+orig.brik", "+tlrc.head", "+tlrc.brik", ".brik", ".brik.gz", ".head")),
    _Signature(name="PAR/REC", suffixes=(".par", ".rec"), magic=(b"# === DATA DESCRIPTION FILE",)),
    _Signature(name="Bruker", suffixes=("2dseq",)),
    _Signature(name="ECAT", suffixes=(".v",), magic=(b"MATRIX7",)),
    _Signature(name="Interfile", suffixes=(".hv", ".i33", ".hs"), magic=(b"!INTERFILE", b"!interfile")),
    _Signature(name="VTK", suffixes=(".vtk", ".vti"), magic=(b"# vtk DataFile",)),
    _Signature(name="MRC", suffixes=(".mrc", ".ccp4"), magic=(b"MAP ",), offset=208),
    _Signature(name="CZI", suffixes=(".czi",), magic=(b"ZISRAWFILE",)),
    _Signature(name="LIF", suffixes=(".lif",)),
    _Signature(name="ND2", suffixes=(".nd2",), magic=(b"\xda\xce\xbe\n",)),
    _Signature(name="MIRAX", suffixes=(".mrxs",)),
    _Signature(name="ICS/IDS", suffixes=(".ics", ".ids"), magic=(b"\t\nics_version", b"\t\r\nics_version")),
    _Signature(name="DjVu", suffixes=(".djvu",), magic=(b"AT&TFORM",)),
    _Signature(name="MP4 video", suffixes=(".mp4", ".m4v", ".mov"), magic=(b"ftyp", b"moov"), offset=_FTYP),
    _Signature(name="AVI video", suffixes=(".avi",), magic=(b"AVI ",), offset=8),
    _Signature(name="Matroska video", suffixes=(".mkv", ".webm"), magic=(b"\x1aE\xdf\xa3",)),
    _Signature(name="MPEG video", suffixes=(".mpg", ".mpeg"), magic=(b"\0\0\1\xba", b"\0\0\1\xb3")),
    _Signature(name="WMV video", suffixes=(".wmv", ".asf"), magic=(b"0&\xb2u\x8ef\xcf\x11",)),
    _Signature(
        name="tar archive", suffixes=(".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst"), magic=(b"ustar",), offset=257
    ),
    _Signature(name="gzip file", suffixes=(".gz",), magic=(b"\x1f\x8b",)),
    _Signature(name="bzip2 file", suffixes=(".bz2",), magic=(b"BZh",)),
    _Signature(name="xz file", suffixes=(".xz", ".lzma"), magic=(b"\xfd7zXZ\0",)),
    _Signature(name="zstd file", suffixes=(".zst",), magic=(b"(\xb5/\xfd",)),
    _Signature(name="lz4 file", suffixes=(".lz4",), magic=(b"\x04\x22M\x18",)),
    _Signature(name="7z archive", suffixes=(".7z",), magic=(b"7z\xbc\xaf'\x1c",)),
    _Signature(name="RAR archive", suffixes=(".rar",), magic=(b"Rar!\x1a\x07",)),
)

#: Images of slides in many resolutions, which are no input by themselves.
WHOLE_SLIDES = frozenset({"SVS", "NDPI", "SCN", "QPTIFF", "BIF", "Philips TIFF", "MIRAX", "CZI"})
#: Formats whose content is compressed, so that the name tells more.
_CONTAINERS = frozenset({"gzip file", "bzip2 file", "xz file", "zstd file", "lz4 file"})
#: Names of formats that hold no images, by the endings of file names.
OTHERS = {
    "csv": (".csv", ".tsv"),
    "json": (".json", ".jsonl", ".ndjson", ".geojson"),
    "xml": (".xml", ".xsd", ".xsl"),
    "text": (
        ".txt",
        ".md",
        ".rst",
        ".log",
        ".readme",
        "readme",
        "license",
        "changes",
        ".cfg",
        ".ini",
        ".toml",
        ".yaml",
        ".yml",
        ".lst",
    ),
    "html": (".html", ".htm", ".css"),
    "document": (".pdf", ".doc", ".docx", ".odt", ".rtf", ".ppt", ".pptx", ".odp", ".tex", ".bib", ".svg", ".eps", ".ps"),
    "spreadsheet": (".xls", ".xlsx", ".xlsm", ".ods"),
    "program": (".py", ".ipynb", ".m", ".sh", ".bat", ".r", ".c", ".cpp", ".h", ".js", ".java", ".jar", ".exe", ".dll", ".so"),
    "gradient table": (".bval", ".bvec", ".bvals", ".bvecs"),
    "checksum": (".md5", ".sha1", ".sha256", ".sha512", ".crc"),
    "database": (".db", ".sqlite", ".sqlite3", ".parquet", ".feather", ".arrow", ".mdb", ".lmdb", ".tfrecord", ".tfrecords"),
    "model": (".pt", ".pth", ".onnx", ".safetensors", ".ckpt", ".pb", ".pkl", ".pickle", ".joblib"),
    "surface or tract": (".stl", ".obj", ".ply", ".gii", ".trk", ".tck", ".vtp", ".off", ".annot"),
    "sound or signal": (".wav", ".mp3", ".edf", ".bdf", ".fif", ".eeg", ".vhdr", ".vmrk"),
    "transform": (".xfm", ".lta", ".tfm", ".aff12"),
}
_TEXT = frozenset(range(0x20, 0x7F)) | frozenset(b"\t\n\r\f\x1b") | frozenset(range(0x80, 0x100))
_LOOKED_AT = 4096


def identify_unread(name: str, head: bytes) -> Unread:
    """Identify a file that none of the readers reads.

    Args:
        name: the file's name; only its known suffixes are used.
        head: its first bytes.

    Returns:
        The name of the format, and whether it may hold images.
    """
    lower = name.lower()
    other = next((kind for kind, endings in OTHERS.items() if lower.endswith(endings)), None)
    image = _find_by_content(lower, head)
    if image and image.name in _CONTAINERS:
        image = _find_by_name(lower) or image
    if image and not (other and image.magic == _ZIP):  # many documents are zip files
        return Unread(format=image.name, is_image=True)
    if other:
        return Unread(format=other, is_image=False)
    if not head:
        return Unread(format="empty", is_image=False)
    if image := _find_by_name(lower):
        return Unread(format=image.name, is_image=True)
    return Unread(format="text" if _TEXT.issuperset(head[:_LOOKED_AT]) else "unknown", is_image=False)


def identify_promised_unread(name: str, head: bytes) -> Unread | None:
    """Identify a file whose name and content are both of a format that is not read, such as a whole-slide image.

    Such formats may share their first bytes with one that is read.

    Args:
        name: the file's name; only its known suffixes are used.
        head: its first bytes.

    Returns:
        The format; None for other files.
    """
    promised = _find_by_name(name.lower())
    if promised is None or not promised.magic or promised.name in _CONTAINERS:
        return None
    return Unread(format=promised.name, is_image=True) if head.startswith(promised.magic, promised.offset) else None


def image_format(head: bytes) -> str | None:
    """The name of the image format that the first bytes are of, among those that are not read."""
    found = _find_by_content("", head)
    return found.name if found else None


def _find_by_name(lower: str) -> _Signature | None:
    return next((one for one in IMAGES if lower.endswith(one.suffixes)), None)


def _find_by_content(lower: str, head: bytes) -> _Signature | None:
    fitting = [one for one in IMAGES if one.magic and head.startswith(one.magic, one.offset) and _is_sure(one, head)]
    return next((one for one in fitting if lower.endswith(one.suffixes)), fitting[0] if fitting else None)


def _is_sure(one: _Signature, head: bytes) -> bool:
    """Whether magic that is short is borne out by what stands around it."""
    if one.offset == 8:  # AVI
        return head.startswith(b"RIFF")
    return True
