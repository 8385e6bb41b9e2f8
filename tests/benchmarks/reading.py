"""Discovery and reading of volumes, against pydicom, SimpleITK and dcm2niix, in one run on generated CT.

    python -m tests.benchmarks.reading [--rounds 5] [--series 10]

Prints CPU seconds (user and system) as medians over rounds in which the programs take turns,
and the ratio to ours. Needs `dcm2niix` on the PATH (`pip install dcm2niix`). Files lie in a
temporary folder and in the page cache: disks are not measured.
"""

# ruff: noqa: SIM905 - lists of terms read better as words
import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk  # noqa: N813 - its usual name
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from platform_core.dicom.rules import HEAD_BYTES, glance, glance_at_head
from platform_core.imaging.nifti import encode_volume, write_raw
from platform_core.imaging.volume import Volume
from platform_core.manifest.reading import Room, open_file, read_series
from platform_core.settings import SiteSettings
from platform_core.sources import SOURCES
from platform_core.sources.contract import list_items

ROOT = "1.2.826.0.1.3680043.10.2"
N_SLICES, SIDE = 200, 512
WANTED = ["SOPClassUID", "ImageType", "Modality", "SeriesInstanceUID"]

Timed = Callable[[], object]


def main() -> None:
    """Make the scans, let everybody take turns, print medians and ratios."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--rounds", type=int, default=5)
    asked.add_argument("--series", type=int, default=10)
    options = asked.parse_args()
    if shutil.which("dcm2niix") is None:
        sys.exit("dcm2niix is not on the PATH: pip install dcm2niix")
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    with tempfile.TemporaryDirectory(prefix="sitedrift-bench-") as folder:
        root = Path(folder)
        n_files = write_scans(root / "scans", options.series)
        one = root / "scans" / "series00"
        print(f"{n_files} CT slices of {SIDE} x {SIDE}; {options.rounds} rounds; CPU seconds, medians")
        report("discovery, per 1,000 files", discovery(root), options.rounds, 1000 / n_files)
        report(f"reading {N_SLICES} slices to a volume", reading(one), options.rounds)
        report("reading, and writing raw NIfTI", raw(one, root), options.rounds)
        report("reading, and writing .nii.gz", compressed(one, root), options.rounds)


def report(what: str, runs: dict[str, Timed], rounds: int, scale: float = 1.0) -> None:
    """Time everybody in turns, the first is ours."""
    for run in runs.values():
        run()
    taken: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            taken[name].append(cpu_seconds(run) * scale)
    ours = statistics.median(next(iter(taken.values())))
    print(f"\n{what}")
    for name, times in taken.items():
        median = statistics.median(times)
        print(f"  {name:28s} {median:8.3f} s   x {median / ours:5.1f}   ({min(times):.3f} to {max(times):.3f})")


def cpu_seconds(run: Timed) -> float:
    """User and system time of this process and of what it starts."""
    before = _used()
    run()
    return _used() - before


def _used() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def discovery(root: Path) -> dict[str, Timed]:
    """To which series does each file belong, and is it an image?"""
    scans = root / "scans"
    settings = SiteSettings(path=str(scans))
    source = SOURCES["folder"]

    def ours() -> None:
        for item in list_items(source, settings):
            look = glance_at_head(source.head(settings, item.address, HEAD_BYTES))
            assert look or glance(source.open(settings, item.address))

    def with_pydicom() -> None:
        for file in _files(scans):
            pydicom.dcmread(file, specific_tags=WANTED, stop_before_pixels=True)

    def with_simpleitk() -> None:
        for folder in sorted(scans.iterdir()):
            sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))

    def with_dcm2niix() -> None:
        _call("dcm2niix", "-n", "-1", "-f", "x", str(scans))

    return {"sitedrift": ours, "pydicom": with_pydicom, "SimpleITK": with_simpleitk, "dcm2niix -n -1": with_dcm2niix}


def volume_of(folder: Path) -> Volume:
    """As ingest reads a series, without the ledger."""
    files = _files(folder)
    room = Room(len(files))
    opened = [open_file(Path(file).read_bytes(), room) for file in files]
    volume = read_series(opened, room, lambda _: False).parts[0].volume
    assert volume is not None
    return volume


def reading(folder: Path) -> dict[str, Timed]:
    """Voxels in HU, in order, with geometry."""

    def with_simpleitk() -> sitk.Image:
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
        return reader.Execute()

    def with_pydicom() -> object:
        slices = sorted((pydicom.dcmread(file) for file in _files(folder)), key=lambda d: d.ImagePositionPatient[2])
        return np.stack([d.pixel_array * d.RescaleSlope + d.RescaleIntercept for d in slices]).astype(np.int16)

    first, other = volume_of(folder), sitk.GetArrayFromImage(with_simpleitk())
    np.testing.assert_array_equal(first.voxels, other)
    return {
        "sitedrift": lambda: volume_of(folder),
        "SimpleITK": with_simpleitk,
        "pydicom": with_pydicom,
        "the bytes alone": lambda: [Path(file).read_bytes() for file in _files(folder)],
    }


def raw(folder: Path, root: Path) -> dict[str, Timed]:
    """To an uncompressed file."""

    def ours() -> None:
        with (root / "ours.nii").open("wb") as out:
            write_raw(volume_of(folder), out)

    return {"sitedrift": ours, "dcm2niix -z n": lambda: _convert(folder, root, "n")}


def compressed(folder: Path, root: Path) -> dict[str, Timed]:
    """To a compressed file."""
    return {
        "sitedrift": lambda: (root / "ours.nii.gz").write_bytes(encode_volume(volume_of(folder))),
        "dcm2niix -z y": lambda: _convert(folder, root, "y"),
    }


def _convert(folder: Path, root: Path, zipped: str) -> None:
    out = root / "converted"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    _call("dcm2niix", "-z", zipped, "-b", "n", "-o", str(out), str(folder))
    assert any(out.iterdir())


def _call(*command: str) -> None:
    subprocess.run(command, check=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def _files(folder: Path) -> Sequence[str]:
    return sorted(f"{at}/{name}" for at, _, names in os.walk(folder) for name in names)


def write_scans(root: Path, n_series: int) -> int:
    """CT of noise over a gradient; headers as long as clinical ones are: some 150 elements, nested sequences too."""
    rng = np.random.default_rng(0)
    ramp = np.add.outer(np.arange(SIDE), np.arange(SIDE))
    for series in range(n_series):
        folder = root / f"series{series:02d}"
        folder.mkdir(parents=True)
        for place in range(N_SLICES):
            pixels = (ramp + rng.normal(0, 20, (SIDE, SIDE)) + 500).astype("<i2")
            _slice(series, place, pixels).save_as(folder / f"IM{place:04d}.dcm", enforce_file_format=True)
    return n_series * N_SLICES


SEQUENCES = {
    "ReferencedStudySequence": 1,
    "ReferencedPerformedProcedureStepSequence": 1,
    "ReferencedImageSequence": 3,
    "SourceImageSequence": 2,
    "ProcedureCodeSequence": 1,
    "RequestAttributesSequence": 1,
    "PerformedProtocolCodeSequence": 1,
}
TEXTS = (
    "DataCollectionDiameter ReconstructionDiameter DistanceSourceToDetector DistanceSourceToPatient GantryDetectorTilt "
    "TableHeight ExposureTime XRayTubeCurrent Exposure FilterType GeneratorPower FocalSpots "
    "AcquisitionNumber SliceLocation "
    "WindowCenter WindowWidth AccessionNumber InstitutionName StationName StudyDescription PatientComments"
).split()
"""What a clinical header states beside the fields that are read."""


def _item(number: int) -> Dataset:
    item, code = Dataset(), Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CTImageStorage, f"{ROOT}.9.{number}"
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "1", "99BENCH", "a code"
    item.PurposeOfReferenceCodeSequence = [code]
    return item


def _slice(series: int, place: int, pixels: np.ndarray) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    facts = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": f"{ROOT}.{series}.{place}",
        "StudyInstanceUID": f"{ROOT}.1000.{series}",
        "SeriesInstanceUID": f"{ROOT}.2000.{series}",
        "FrameOfReferenceUID": f"{ROOT}.3000.{series}",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "Modality": "CT",
        "Manufacturer": "Sitedrift",
        "ManufacturerModelName": "Benchmark",
        "PatientName": "Bench^Mark",
        "PatientID": f"B{series}",
        "StudyDate": "20260101",
        "SeriesDate": "20260101",
        "AcquisitionDate": "20260101",
        "StudyTime": "101010",
        "SeriesDescription": "Thorax 1.0",
        "ProtocolName": "Thorax",
        "BodyPartExamined": "CHEST",
        "PatientPosition": "HFS",
        "KVP": "120",
        "SliceThickness": "1.0",
        "ConvolutionKernel": "B30f",
        "SeriesNumber": str(series + 1),
        "AcquisitionNumber": "1",
        "InstanceNumber": str(place + 1),
        "ImagePositionPatient": [-180.0, -180.0, float(place)],
        "ImageOrientationPatient": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        "PixelSpacing": [0.7, 0.7],
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": SIDE,
        "Columns": SIDE,
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 1,
        "RescaleIntercept": "-1024",
        "RescaleSlope": "1",
        "PixelData": pixels.tobytes(),
    }
    for keyword, value in facts.items():
        setattr(dataset, keyword, value)
    for keyword, n_items in SEQUENCES.items():
        setattr(dataset, keyword, [_item(n) for n in range(n_items)])
    for keyword in TEXTS:
        setattr(dataset, keyword, "1")
    block = dataset.private_block(0x0009, "SITEDRIFT BENCH", create=True)
    for number in range(60):
        block.add_new(number, "LO", f"private value {number}")
    return dataset


if __name__ == "__main__":
    started = time.monotonic()
    main()
    print(f"\n{time.monotonic() - started:.0f} s in all")
