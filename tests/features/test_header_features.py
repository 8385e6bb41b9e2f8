"""From the header of a DICOM file to the acquisition features."""

from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.sequence import Sequence as Items

from platform_core.dicom.header import Header, open_scan
from platform_core.features.acquisition import STATED
from platform_core.features.measure import measure
from platform_core.imaging.volume import Volume
from platform_core.manifest.reading import Room, open_file, read_series
from platform_core.manifest.schemas import SERIES
from platform_core.phantom.acquire import acquire
from platform_core.phantom.anatomy import draw_anatomy
from platform_core.phantom.cohort import FIRST_DAY, Study
from platform_core.phantom.dicom import write_scan
from platform_core.phantom.vendors import NORTH, WEST, Scanner


def phantom_file(folder: Path, scanner: Scanner) -> Dataset:
    """The first file of a scan."""
    study = Study(site="n", month=0, patient=1, visit=0, lesion="benign", scanned_on=FIRST_DAY, scanner=scanner)
    rng = np.random.default_rng(0)
    write_scan(folder, study, acquire(draw_anatomy("benign", rng), scanner.acquisition, rng), seed=1)
    return pydicom.dcmread(folder / "IM0")


def header(dataset: Dataset, folder: Path) -> Header:
    dataset.save_as(folder / "changed")
    return open_scan((folder / "changed").read_bytes()).header


def test_a_classic_file_states_its_numbers(tmp_path: Path) -> None:
    file = phantom_file(tmp_path, NORTH)
    file.SliceThickness, file.SpacingBetweenSlices = "5.0", "3.0"
    file.Exposure, file.FlipAngle, file.PixelBandwidth = "150", "70", "244.141"
    found = header(file, tmp_path)
    assert (found.slice_thickness_mm, found.exposure_mas, found.kvp) == (5.0, 150.0, 120.0)
    assert (found.flip_angle_deg, found.pixel_bandwidth_hz) == (70.0, 244.141)


def test_an_enhanced_file_states_them_in_its_groups(tmp_path: Path) -> None:
    file = phantom_file(tmp_path, WEST)
    exposure = Dataset()
    exposure.ExposureInmAs = 88.5
    shared, frames = file.SharedFunctionalGroupsSequence[0], file.PerFrameFunctionalGroupsSequence
    shared.PixelMeasuresSequence[0].SliceThickness = "2.0"
    for frame in frames:
        frame.CTExposureSequence = Items([exposure])
    found = header(file, tmp_path)
    assert (found.slice_thickness_mm, found.exposure_mas, found.kvp) == (2.0, 88.5, 120.0)


@pytest.mark.parametrize("spelt", ["", "0", "-1"])
def test_a_number_that_says_nothing_is_no_feature(tmp_path: Path, spelt: str) -> None:
    file = phantom_file(tmp_path, NORTH)
    file.SliceThickness = spelt
    stated = header(file, tmp_path).slice_thickness_mm
    scan = Volume(np.random.default_rng(0).normal(40, 10, (3, 20, 20)).astype(np.float32))
    assert measure(scan, "CT", {"slice_thickness_mm": stated})["slice_thickness_mm"] is None


def test_every_acquisition_feature_is_a_column_of_the_manifest(tmp_path: Path) -> None:
    phantom_file(tmp_path, NORTH)
    files = [path.read_bytes() for path in sorted(tmp_path.glob("IM*"))]
    room = Room(len(files))
    facts = read_series([open_file(data, room) for data in files], room, lambda _: False).parts[0].facts
    assert set(STATED) <= set(SERIES.names) & facts.keys()
    assert facts["slice_thickness_mm"] == NORTH.acquisition.spacing_mm[2]
