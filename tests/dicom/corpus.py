"""DICOM files made from known arrays: every encoding that the door must read, and whole series of slices.

The array is the truth. Frames are encoded by imagecodecs and, for RLE, in here: not by what the
platform decodes with. Nothing in here is read from a real scan.
"""

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any, Literal

import imagecodecs
import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRBigEndian

Pixels = npt.NDArray[Any]

ROOT = "1.2.826.0.1.3680043.10.1"
SYNTAX = "1.2.840.10008.1.2"
IMPLICIT, EXPLICIT, BIG, DEFLATED = SYNTAX, f"{SYNTAX}.1", f"{SYNTAX}.2", f"{SYNTAX}.1.99"
RLE, JPEG_LS, JPEG_LS_NEAR = f"{SYNTAX}.5", f"{SYNTAX}.4.80", f"{SYNTAX}.4.81"
JPEG_BASELINE, JPEG_EXTENDED = f"{SYNTAX}.4.50", f"{SYNTAX}.4.51"
JPEG_LOSSLESS, JPEG_SV1 = f"{SYNTAX}.4.57", f"{SYNTAX}.4.70"
JPEG_2000, HTJ2K, HTJ2K_RPCL = f"{SYNTAX}.4.90", f"{SYNTAX}.4.201", f"{SYNTAX}.4.202"

CLASSIC_GEOMETRY = (
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SliceThickness",
    "RescaleSlope",
    "RescaleIntercept",
)
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Depth:
    """How a stored value lies in memory."""

    allocated: int
    stored: int
    is_signed: bool

    @property
    def dtype(self) -> np.dtype[Any]:
        """In this machine's byte order."""
        return np.dtype(f"{'i' if self.is_signed else 'u'}{self.allocated // 8}")

    @property
    def limits(self) -> tuple[int, int]:
        """Least and greatest value that can be stored."""
        half = 2 ** (self.stored - 1)
        return (-half, half - 1) if self.is_signed else (0, 2 * half - 1)

    def __str__(self) -> str:
        return f"{'signed' if self.is_signed else 'unsigned'} {self.stored} in {self.allocated}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Coding:
    """One way to compress a frame (y, x)."""

    name: str
    syntax: str
    encode: Callable[[Pixels, Depth], bytes]
    depths: tuple[Depth, ...]
    tolerance: int = 0
    """Largest difference from the array; 0 for lossless."""


def depth(stored: int, allocated: int, *, is_signed: bool = False) -> Depth:
    """Short for a `Depth`."""
    return Depth(allocated=allocated, stored=stored, is_signed=is_signed)


def noise(shape: Sequence[int], how: Depth, seed: int = 7) -> Pixels:
    """Every kind of value that fits, the extremes among them; (y, x) or (plane, y, x)."""
    low, high = how.limits
    values = np.random.default_rng(seed).integers(low, high, shape, dtype=np.int64, endpoint=True)
    values.flat[:2] = low, high
    return values.astype(how.dtype)


def hill(shape: tuple[int, int], how: Depth) -> Pixels:
    """A smooth image, for lossy codings; (y, x)."""
    low, high = how.limits
    y, x = np.mgrid[: shape[0], : shape[1]]
    bell = np.exp(-(((y - shape[0] / 3) / shape[0]) ** 2 + ((x - shape[1] / 2) / shape[1]) ** 2) * 6)
    return np.asarray(np.round(low + (high - low) * (0.1 + 0.8 * bell)), how.dtype)


def file_of(pixels: Pixels, how: Depth, syntax: str = EXPLICIT, **elements: Any) -> bytes:
    """An uncompressed file of a plane (y, x) or of several (plane, y, x); None takes an element out."""
    return coded(dataset_of(pixels, how, syntax, **elements))


def compressed_file(
    frames: Sequence[Pixels],
    coding: Coding,
    how: Depth,
    *,
    table: Literal["basic", "empty", "extended"] = "basic",
    n_fragments: int = 1,
    **elements: Any,
) -> bytes:
    """A compressed file of planes (y, x), each cut into fragments of an even number of bytes."""
    codes = [coding.encode(frame, how) for frame in frames]
    dataset = dataset_of(np.stack(frames), how, coding.syntax, **elements)
    wrap(dataset, codes, table=table, n_fragments=n_fragments)
    return coded(dataset)


def wrap(
    dataset: Dataset,
    codes: Sequence[bytes],
    *,
    table: Literal["basic", "empty", "extended"] = "basic",
    n_fragments: int = 1,
) -> None:
    """Put compressed frames into the pixel data as PS3.5 annex A.4 lays them out."""
    frames = [_fragments(code, n_fragments) for code in codes]
    sizes = [sum(8 + len(fragment) for fragment in fragments) for fragments in frames]
    offsets = [sum(sizes[:k]) for k in range(len(frames))]
    basic = struct.pack(f"<{len(offsets)}I", *offsets) if table == "basic" else b""
    body = b"".join(_item(fragment) for fragments in frames for fragment in fragments)
    dataset.PixelData = _item(basic) + body
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    if table == "extended":
        dataset.ExtendedOffsetTable = struct.pack(f"<{len(offsets)}Q", *offsets)
        dataset.ExtendedOffsetTableLengths = struct.pack(f"<{len(codes)}Q", *[len(code) for code in codes])


def _fragments(code: bytes, n: int) -> list[bytes]:
    code += b"\x00" * (len(code) % 2)
    step = max(2, len(code) // n // 2 * 2)
    cuts = [step * k for k in range(n)]
    return [code[at:end] for at, end in zip(cuts, [*cuts[1:], len(code)], strict=True)]


def _item(data: bytes) -> bytes:
    return b"\xfe\xff\x00\xe0" + struct.pack("<I", len(data)) + data


def dataset_of(pixels: Pixels, how: Depth, syntax: str = EXPLICIT, **elements: Any) -> Dataset:
    """One CT image; several planes make it a multi-frame one."""
    planes = pixels if pixels.ndim == 3 else pixels[np.newaxis]
    uid = elements.get("SeriesInstanceUID", f"{ROOT}.1")
    facts: dict[str, Any] = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": f"{uid}.1",
        "SeriesInstanceUID": uid,
        "StudyInstanceUID": f"{ROOT}.0",
        "PatientID": "CORPUS-1",
        "PatientName": "Corpus^One",
        "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "SeriesNumber": 1,
        "InstanceNumber": 1,
        "AcquisitionDate": "20260106",
        "ImagePositionPatient": [0.0, 0.0, 0.0],
        "ImageOrientationPatient": list(AXIAL),
        "PixelSpacing": [1.5, 1.0],
        "SliceThickness": 3.0,
        "Rows": planes.shape[1],
        "Columns": planes.shape[2],
        "BitsAllocated": how.allocated,
        "BitsStored": how.stored,
        "HighBit": how.stored - 1,
        "PixelRepresentation": int(how.is_signed),
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "RescaleSlope": "1",
        "RescaleIntercept": "0",
        "NumberOfFrames": len(planes) if len(planes) > 1 else None,
        "PixelData": plain_bytes(planes, is_big=syntax == BIG),
    }
    if len(planes) > 1 and "PerFrameFunctionalGroupsSequence" not in elements:
        facts |= dict.fromkeys(CLASSIC_GEOMETRY) | enhanced_groups([(0.0, 0.0, 3.0 * k) for k in range(len(planes))])
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(syntax)
    for name, value in (facts | elements).items():
        if value is not None:
            setattr(dataset, name, value)
    return dataset


def plain_bytes(pixels: Pixels, *, is_big: bool = False) -> bytes:
    """Pixels as they lie in an uncompressed file, padded to an even length.

    8-bit pixels in a big-endian file are words too (OW): the bytes of each pair change places.
    """
    data = pixels.astype(pixels.dtype.newbyteorder(">" if is_big else "<")).tobytes()
    data += b"\x00" * (len(data) % 2)
    if is_big and pixels.dtype.itemsize == 1:
        return np.frombuffer(data, "<u2").astype(">u2").tobytes()
    return data


def coded(dataset: Dataset) -> bytes:
    """A dataset as the bytes of a file."""
    if dataset.file_meta.TransferSyntaxUID == ExplicitVRBigEndian and "PixelData" in dataset:
        dataset["PixelData"].VR = "OW"
    out = BytesIO()
    pydicom.dcmwrite(out, dataset, enforce_file_format=True)
    return out.getvalue()


def group(**sequences: Any) -> Dataset:
    """A functional group: sequences of one item each."""
    whole = Dataset()
    for name, facts in sequences.items():
        item = Dataset()
        for key, value in facts.items():
            setattr(item, key, value)
        setattr(whole, name, [item])
    return whole


def enhanced_groups(
    positions_mm: Iterable[Sequence[float] | None],
    *,
    orientation: Sequence[float] = AXIAL,
    spacing_mm: tuple[float, float] = (1.5, 1.0),
    own: Callable[[int], dict[str, Any]] = lambda _: {},
) -> dict[str, Any]:
    """The functional groups of an enhanced file.

    Args:
        positions_mm: Of each frame; None leaves the position out.
        orientation: Shared by all frames.
        spacing_mm: Between rows, between columns, as the standard writes it.
        own: More groups for frame k; they overrule the shared ones.
    """
    shared = {
        "PlaneOrientationSequence": {"ImageOrientationPatient": list(orientation)},
        "PixelMeasuresSequence": {"PixelSpacing": list(spacing_mm), "SliceThickness": 3.0},
        "PixelValueTransformationSequence": {"RescaleSlope": 1, "RescaleIntercept": 0, "RescaleType": "US"},
    }
    frames = []
    for k, position in enumerate(positions_mm):
        facts = own(k)
        if position is not None:
            facts = {"PlanePositionSequence": {"ImagePositionPatient": list(position)}} | facts
        frames.append(group(**facts))
    return {"SharedFunctionalGroupsSequence": [group(**shared)], "PerFrameFunctionalGroupsSequence": frames}


def rle(frame: Pixels, how: Depth) -> bytes:
    """RLE as PS3.5 annex G has it: one run of PackBits per byte of a pixel, the highest byte first."""
    octets = frame.astype(how.dtype.newbyteorder(">")).view(np.uint8).reshape(*frame.shape, -1)
    runs = [_packed(octets[..., k]) for k in range(octets.shape[-1])]
    starts = [64 + sum(len(run) for run in runs[:k]) for k in range(len(runs))]
    return struct.pack("<16I", len(runs), *starts, *[0] * (15 - len(runs))) + b"".join(runs)


def _packed(plane: npt.NDArray[np.uint8]) -> bytes:
    """Rows are packed one by one, as the standard asks."""
    run = b"".join(bytes(imagecodecs.packbits_encode(row.tobytes())) for row in plane)
    return run + b"\x00" * (len(run) % 2)


def bits_of(frame: Pixels, how: Depth, n_bits: int) -> Pixels:
    """Two's complement in the lowest bits, as codings without signs store it."""
    kind = np.uint8 if n_bits <= 8 else np.uint16
    return np.asarray(frame.astype(np.int64) & (2**n_bits - 1), kind)


def bits32(pixels: Pixels, n_bits: int) -> npt.NDArray[np.int64]:
    """Two's complement in the lowest bits, of any depth."""
    return np.asarray(pixels.astype(np.int64) & (2**n_bits - 1))


def jpeg_lossless(predictor: int) -> Callable[[Pixels, Depth], bytes]:
    """JPEG process 14 with one of the seven predictors; as many bits as are stored."""

    def encode(frame: Pixels, how: Depth) -> bytes:
        bits = bits_of(frame, how, how.stored)
        return bytes(imagecodecs.jpeg8_encode(bits, lossless=True, predictor=predictor, bitspersample=how.stored))

    return encode


def jpeg_lossless_wide(frame: Pixels, how: Depth) -> bytes:
    """As many bits as are allocated, the sign carried up into them."""
    bits = bits_of(frame, how, how.allocated)
    return bytes(imagecodecs.jpeg8_encode(bits, lossless=True, predictor=1, bitspersample=how.allocated))


def jpeg(frame: Pixels, how: Depth) -> bytes:
    """Lossy JPEG of 8 (baseline) or 12 (extended) bits."""
    return bytes(imagecodecs.jpeg8_encode(frame, level=97, bitspersample=how.stored))


def jpeg_ls(frame: Pixels, how: Depth) -> bytes:
    """Lossless JPEG-LS."""
    return bytes(imagecodecs.jpegls_encode(bits_of(frame, how, how.allocated)))


def jpeg_ls_near(frame: Pixels, how: Depth) -> bytes:
    """JPEG-LS that errs by 3 at most."""
    return bytes(imagecodecs.jpegls_encode(bits_of(frame, how, how.allocated), level=NEAR))


def jpeg_2000(frame: Pixels, how: Depth) -> bytes:
    """Reversible JPEG 2000, a bare code stream; it has signs of its own."""
    return bytes(imagecodecs.jpeg2k_encode(frame, codecformat="j2k", reversible=True, bitspersample=how.stored))


def htj2k(frame: Pixels, how: Depth) -> bytes:
    """Reversible high-throughput JPEG 2000."""
    return bytes(imagecodecs.htj2k_encode(frame, reversible=True))


NEAR = 3
UNSIGNED = (depth(8, 8), depth(12, 16), depth(16, 16))
SIGNED = (depth(12, 16, is_signed=True), depth(16, 16, is_signed=True))
ALL_DEPTHS = (
    *UNSIGNED,
    *SIGNED,
    depth(8, 8, is_signed=True),
    depth(7, 8),
    depth(8, 16),
    depth(10, 16, is_signed=True),
    depth(16, 32),
    depth(24, 32, is_signed=True),
    depth(32, 32),
    depth(32, 32, is_signed=True),
)
CODINGS = (
    Coding(name="rle", syntax=RLE, encode=rle, depths=ALL_DEPTHS),
    *(
        Coding(name=f"jpeg lossless {k}", syntax=JPEG_LOSSLESS, encode=jpeg_lossless(k), depths=UNSIGNED + SIGNED)
        for k in range(1, 8)
    ),
    Coding(name="jpeg sv1", syntax=JPEG_SV1, encode=jpeg_lossless(1), depths=UNSIGNED + SIGNED),
    Coding(name="jpeg sv1 wide", syntax=JPEG_SV1, encode=jpeg_lossless_wide, depths=UNSIGNED + SIGNED),
    Coding(name="jpeg-ls", syntax=JPEG_LS, encode=jpeg_ls, depths=UNSIGNED + SIGNED),
    Coding(name="jpeg 2000", syntax=JPEG_2000, encode=jpeg_2000, depths=UNSIGNED + SIGNED),
    Coding(name="htj2k", syntax=HTJ2K, encode=htj2k, depths=(depth(8, 8), depth(16, 16), SIGNED[1])),
    Coding(name="htj2k rpcl", syntax=HTJ2K_RPCL, encode=htj2k, depths=(depth(16, 16),)),
)
LOSSY = (
    Coding(name="jpeg-ls near", syntax=JPEG_LS_NEAR, encode=jpeg_ls_near, depths=UNSIGNED, tolerance=NEAR),
    Coding(name="jpeg baseline", syntax=JPEG_BASELINE, encode=jpeg, depths=(depth(8, 8),), tolerance=4),
    Coding(name="jpeg extended", syntax=JPEG_EXTENDED, encode=jpeg, depths=(depth(12, 16),), tolerance=24),
)
BY_NAME = {coding.name: coding for coding in (*CODINGS, *LOSSY)}
