"""A month on disk: who came, what the files say, and whether any reader of DICOM sees what was rendered."""

import csv
import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813 - its usual name
from numpy.typing import NDArray
from scipy.stats import binomtest

from platform_core.phantom.cohort import (
    FIRST_DAY,
    MONTH_DAYS,
    Cohorts,
    Study,
    default_cohorts,
    draw_studies,
    identity,
)
from platform_core.phantom.dicom import series_uid, write_scan
from platform_core.phantom.vendors import EAST, NORTH, WEST, WEST_NEW, Scanner
from platform_core.phantom.write import Month, render, write_month

SEED = 3
SCANNERS = {"north": NORTH, "east": EAST, "west": WEST, "west_new": WEST_NEW}


def small() -> Cohorts:
    """Six patients per site and month; `default_cohorts` never goes below twenty."""
    return {
        site: tuple(replace(cohort, n_patients=6) for cohort in months) for site, months in default_cohorts().items()
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Month]:
    folder = tmp_path_factory.mktemp("phantom")
    return folder, write_month(folder, month=1, seed=SEED, cohorts=small())


@pytest.fixture(params=SCANNERS)
def one(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Study, Path]:
    """One study by each scanner, in a folder of its own."""
    study = a_study(SCANNERS[request.param])
    write_scan(tmp_path, study, render(study, SEED), SEED)
    return study, tmp_path


def a_study(scanner: Scanner) -> Study:
    return Study(
        site="west", month=2, patient=4, visit=0, lesion="benign", scanned_on=date(2026, 2, 3), scanner=scanner
    )


def files_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_itk_reads_the_rendered_hu_and_the_grid(one: tuple[Study, Path]) -> None:
    study, folder = one
    truth = render(study, SEED)
    assert truth.geometry is not None
    image = read_by_itk(folder)
    assert image.GetSize() == truth.size
    np.testing.assert_allclose(image.GetSpacing(), truth.geometry.spacing_mm, atol=1e-5)
    np.testing.assert_allclose(image.GetOrigin(), truth.geometry.origin_mm, atol=1e-4)
    np.testing.assert_allclose(image.GetDirection(), truth.geometry.direction, atol=1e-6)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), truth.voxels)


def read_by_itk(folder: Path) -> sitk.Image:
    names = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder))
    if len(names) == 1:
        return sitk.ReadImage(names[0])
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(names)
    return reader.Execute()


def test_pydicom_reads_the_rendered_hu(one: tuple[Study, Path]) -> None:
    study, folder = one
    truth = render(study, SEED).voxels
    datasets = sorted((pydicom.dcmread(file) for file in files_in(folder)), key=lambda ds: int(ds.InstanceNumber))
    found = np.concatenate([planes_of(ds) + study.scanner.intercept_hu for ds in datasets])
    np.testing.assert_array_equal(found, truth)


def planes_of(dataset: pydicom.Dataset) -> NDArray[np.int32]:
    """Stored values, (z, y, x)."""
    pixels: NDArray[np.int32] = dataset.pixel_array.astype(np.int32)
    return pixels if pixels.ndim == 3 else pixels[np.newaxis]


def test_headers_say_which_scanner(one: tuple[Study, Path]) -> None:
    study, folder = one
    ds = pydicom.dcmread(files_in(folder)[0], stop_before_pixels=True)
    assert (ds.Manufacturer, ds.ManufacturerModelName, ds.SoftwareVersions) == (
        study.scanner.manufacturer,
        study.scanner.scanner_model,
        study.scanner.software,
    )
    inner = ds.SharedFunctionalGroupsSequence[0].CTReconstructionSequence[0] if "NumberOfFrames" in ds else ds
    assert inner.ConvolutionKernel == study.scanner.kernel


def test_an_enhanced_file_places_every_frame(tmp_path: Path) -> None:
    study = a_study(WEST_NEW)
    write_scan(tmp_path, study, render(study, SEED), SEED)
    (file,) = files_in(tmp_path)
    ds = pydicom.dcmread(file)
    shared, frames = ds.SharedFunctionalGroupsSequence[0], ds.PerFrameFunctionalGroupsSequence
    places = [frame.PlanePositionSequence[0].ImagePositionPatient[2] for frame in frames]
    assert len(frames) == int(ds.NumberOfFrames) == WEST_NEW.acquisition.size[2]
    np.testing.assert_allclose(np.diff(places), WEST_NEW.acquisition.spacing_mm[2])
    assert [f.FrameContentSequence[0].InStackPositionNumber for f in frames] == list(range(1, len(frames) + 1))
    assert shared.PixelMeasuresSequence[0].PixelSpacing == [1.6, 1.6]
    assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == [1, 0, 0, 0, 1, 0]


def test_the_three_vendors_store_pixels_in_three_ways(written: tuple[Path, Month]) -> None:
    folder, _ = written
    first = {site: pydicom.dcmread(files_in(folder / site)[0]) for site in small()}
    syntaxes = {site: ds.file_meta.TransferSyntaxUID.name for site, ds in first.items()}
    assert syntaxes["east"] == "RLE Lossless"
    assert syntaxes["north"] == syntaxes["west"] == "Explicit VR Little Endian"
    assert {site: "NumberOfFrames" in ds for site, ds in first.items()} == {"north": False, "east": False, "west": True}
    assert {site: ds.PixelRepresentation for site, ds in first.items()} == {"north": 0, "east": 1, "west": 0}


def test_every_scan_has_one_label_and_it_is_the_truth(written: tuple[Path, Month]) -> None:
    folder, month = written
    for site, file in month.label_files.items():
        with file.open(newline="", encoding="utf-8") as lines:
            rows = list(csv.DictReader(lines))
        truth = {series_uid(study, SEED): study.lesion for study in draw_studies(site, 1, SEED, small())}
        assert {row["series_uid"]: row["value"] for row in rows} == truth
        assert len(rows) == len(truth) == month.n_scans[site]
        assert set(uids_in(folder / site)) == set(truth)


def uids_in(folder: Path) -> Iterator[str]:
    for file in files_in(folder):
        yield str(pydicom.dcmread(file, stop_before_pixels=True).SeriesInstanceUID)


def test_no_two_files_share_an_instance_and_each_series_is_complete(written: tuple[Path, Month]) -> None:
    folder, _ = written
    headers = [pydicom.dcmread(f, stop_before_pixels=True) for s in small() for f in files_in(folder / s)]
    assert max(Counter(ds.SOPInstanceUID for ds in headers).values()) == 1
    n_slices = Counter((ds.Manufacturer, ds.SeriesInstanceUID) for ds in headers)
    for (manufacturer, _), n in n_slices.items():
        assert n == (1 if manufacturer == WEST.manufacturer else 12)


def test_same_seed_same_bytes(written: tuple[Path, Month], tmp_path: Path) -> None:
    folder, _ = written
    write_month(tmp_path, month=1, seed=SEED, cohorts=small())
    assert digests(tmp_path) == digests(folder)


def digests(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files_in(folder)}


def test_another_seed_draws_other_patients() -> None:
    a, b = (draw_studies("north", 1, seed, default_cohorts()) for seed in (1, 2))
    assert [study.lesion for study in a] != [study.lesion for study in b]
    assert not np.array_equal(render(a[0], 1).voxels, render(a[0], 2).voxels)


def test_a_month_is_four_weeks_from_a_monday() -> None:
    assert FIRST_DAY.weekday() == 0
    for month in (1, 2):
        days = [(study.scanned_on - FIRST_DAY).days for study in draw_studies("north", month, 1, default_cohorts())]
        assert (min(days) // MONTH_DAYS, max(days) // MONTH_DAYS) == (month - 1, month - 1)
        assert len(set(days)) == MONTH_DAYS


def test_prevalence_is_what_was_planned() -> None:
    cohorts = default_cohorts(5)
    for site, months in cohorts.items():
        for month, cohort in enumerate(months, start=1):
            lesions = {study.patient: study.lesion for study in draw_studies(site, month, 1, cohorts)}
            n_malignant = sum(lesion == "malignant" for lesion in lesions.values())
            assert binomtest(n_malignant, len(lesions), cohort.prevalence).pvalue > 1e-4, (site, month)


def test_patients_come_back_with_the_same_lesion_and_name() -> None:
    cohorts = default_cohorts()
    months = [{s.patient: s for s in draw_studies("west", month, 1, cohorts)} for month in (1, 2)]
    returned = months[0].keys() & months[1].keys()
    assert len(returned) > 20
    assert all(months[0][p].lesion == months[1][p].lesion for p in returned)
    assert len(months[1]) == cohorts["west"][1].n_patients


def test_several_studies_of_a_patient_share_a_class_and_not_a_series() -> None:
    visits = defaultdict(list)
    for study in draw_studies("east", 1, 1, default_cohorts()):
        visits[study.patient].append(study)
    several = [of_one for of_one in visits.values() if len(of_one) > 1]
    assert len(several) > 10
    assert all(len({study.lesion for study in of_one}) == 1 for of_one in several)
    assert all(len({series_uid(study, 1) for study in of_one}) == len(of_one) for of_one in several)


def test_no_two_patients_of_a_site_share_a_number() -> None:
    numbers = {s.patient for month in (1, 2) for s in draw_studies("north", month, 1, default_cohorts())}
    assert len({identity("north", number)["PatientID"] for number in numbers}) == len(numbers)


def test_headers_hold_an_identity_to_be_removed(written: tuple[Path, Month]) -> None:
    folder, _ = written
    ds = pydicom.dcmread(files_in(folder / "north")[0], stop_before_pixels=True)
    assert all(str(ds[name].value) for name in ("PatientName", "PatientID", "PatientBirthDate", "InstitutionName"))


def test_noise_varies_between_patients_by_a_fifth() -> None:
    """Between sites it differs less than that, so that a site is not told by its dose."""
    studies = [study for study in draw_studies("north", 1, 1, default_cohorts()) if study.visit == 0][:80]
    air = [np.std(render(study, 1).voxels[:, :3, 4:-4]) for study in studies]
    assert np.std(np.log(air)) == pytest.approx(0.2, abs=0.06)


def test_the_new_scanner_is_far_from_the_others_and_those_are_near_each_other() -> None:
    usual = [scanner.acquisition for scanner in (NORTH, EAST, WEST)]
    new = WEST_NEW.acquisition
    assert new.psf_sigma_mm > 2 * max(a.psf_sigma_mm for a in usual)
    assert new.noise_hu > 1.6 * max(a.noise_hu for a in usual)
    assert new.spacing_mm[0] > max(a.spacing_mm[0] for a in usual)
    assert np.ptp([np.log(a.noise_hu) for a in usual]) < 0.2
    assert np.ptp([np.log(a.psf_sigma_mm) for a in usual]) < 0.2
