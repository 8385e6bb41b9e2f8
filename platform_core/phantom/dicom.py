"""One scan as DICOM files in its vendor's habit: classic slices, or one enhanced multi-frame file."""

from pathlib import Path

import numpy as np
from pydicom import Dataset
from pydicom.dataset import FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, ExplicitVRLittleEndian, RLELossless, generate_uid

from platform_core.imaging.volume import Geometry, Volume, Voxels
from platform_core.phantom.cohort import Study, identity
from platform_core.phantom.vendors import Scanner


def series_uid(study: Study, seed: int) -> str:
    """SeriesInstanceUID of a study's only series; same study and seed, same UID."""
    return _uid(study, seed, "series")


def write_scan(folder: Path, study: Study, volume: Volume, seed: int) -> None:
    """Write one scan under `folder`; files are named as if by a careless export, without a suffix."""
    folder.mkdir(parents=True, exist_ok=True)
    if study.scanner.encoding == "enhanced":
        _save(_enhanced(study, volume, seed), folder / "IM0")
        return
    for z in range(volume.size[2]):
        _save(_slice(study, volume, z, seed), folder / f"IM{z}")


def _slice(study: Study, volume: Volume, z: int, seed: int) -> Dataset:
    geometry = _known(volume)
    ds = _common(study, volume, seed, CTImageStorage, f"slice {z}")
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.InstanceNumber = z + 1
    ds.ImagePositionPatient = _position(geometry, z)
    ds.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    ds.SliceLocation = ds.ImagePositionPatient[2]
    ds.PixelSpacing = [geometry.spacing_mm[1], geometry.spacing_mm[0]]
    ds.SliceThickness = ds.SpacingBetweenSlices = geometry.spacing_mm[2]
    ds.KVP, ds.ConvolutionKernel = study.scanner.kvp, study.scanner.kernel
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = study.scanner.intercept_hu, 1, "HU"
    _set_pixels(ds, volume.voxels[z], study.scanner)
    if study.scanner.encoding == "rle":
        ds.compress(RLELossless, generate_instance_uid=False)
    return ds


def _enhanced(study: Study, volume: Volume, seed: int) -> Dataset:
    """PS3.3 A.38.1: geometry in functional groups, per frame what differs between frames."""
    geometry = _known(volume)
    ds = _common(study, volume, seed, EnhancedCTImageStorage, "scan")
    ds.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    ds.InstanceNumber, ds.NumberOfFrames = 1, volume.size[2]
    measures = _item(
        PixelSpacing=[geometry.spacing_mm[1], geometry.spacing_mm[0]],
        SliceThickness=geometry.spacing_mm[2],
        SpacingBetweenSlices=geometry.spacing_mm[2],
    )
    values = _item(RescaleIntercept=study.scanner.intercept_hu, RescaleSlope=1, RescaleType="HU")
    shared = _item(
        PixelMeasuresSequence=[measures],
        PlaneOrientationSequence=[_item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
        PixelValueTransformationSequence=[values],
        CTReconstructionSequence=[_item(ConvolutionKernel=study.scanner.kernel)],
        CTXRayDetailsSequence=[_item(KVP=study.scanner.kvp)],
    )
    ds.SharedFunctionalGroupsSequence = Items([shared])
    ds.PerFrameFunctionalGroupsSequence = Items([_frame(geometry, z) for z in range(volume.size[2])])
    _set_pixels(ds, volume.voxels, study.scanner)
    return ds


def _frame(geometry: Geometry, z: int) -> Dataset:
    return _item(
        FrameContentSequence=[_item(StackID="1", InStackPositionNumber=z + 1, DimensionIndexValues=[1, z + 1])],
        PlanePositionSequence=[_item(ImagePositionPatient=_position(geometry, z))],
    )


def _common(study: Study, volume: Volume, seed: int, sop_class: str, instance: str) -> Dataset:
    """Header fields that every file of a study carries, identity included."""
    scanner, day = study.scanner, f"{study.scanned_on:%Y%m%d}"
    ds = _item(**identity(study.site, study.patient))
    ds.SOPClassUID, ds.SOPInstanceUID = sop_class, _uid(study, seed, instance)
    ds.StudyInstanceUID, ds.SeriesInstanceUID = _uid(study, seed, "study"), series_uid(study, seed)
    ds.FrameOfReferenceUID = _uid(study, seed, "frame of reference")
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = day
    ds.StudyTime = ds.ContentTime = "081500"
    ds.AccessionNumber, ds.StudyID = f"A{study.patient:06d}{study.month}{study.visit}", "1"
    ds.Modality, ds.BodyPartExamined, ds.SeriesNumber = "CT", "ABDOMEN", 2
    ds.Manufacturer, ds.ManufacturerModelName = scanner.manufacturer, scanner.scanner_model
    ds.SoftwareVersions, ds.InstitutionName = scanner.software, scanner.institution
    ds.StationName, ds.ReferringPhysicianName = f"{scanner.scanner_model[:6].upper()}1", "House^Gregory"
    ds.SeriesDescription = f"ABDOMEN {volume.size[2]}x{volume.first().voxels.shape[1]}"
    ds.PatientPosition = "HFS"
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return ds


def _set_pixels(ds: Dataset, voxels: Voxels, scanner: Scanner) -> None:
    stored = voxels.astype(np.int32) - scanner.intercept_hu
    is_signed = scanner.intercept_hu == 0
    ds.Rows, ds.Columns = voxels.shape[-2:]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 16, 15
    ds.PixelRepresentation = int(is_signed)
    ds.PixelData = stored.astype("<i2" if is_signed else "<u2").tobytes()
    ds["PixelData"].VR = "OW"


def _save(ds: Dataset, file: Path) -> None:
    ds.save_as(file, enforce_file_format=True)


def _item(**elements: object) -> Dataset:
    ds = Dataset()
    for keyword, value in elements.items():
        setattr(ds, keyword, Items(value) if keyword.endswith("Sequence") else value)
    return ds


def _position(geometry: Geometry, z: int) -> list[float]:
    x0, y0, z0 = geometry.origin_mm
    return [round(x0, 6), round(y0, 6), round(z0 + z * geometry.spacing_mm[2], 6)]


def _known(volume: Volume) -> Geometry:
    assert volume.geometry is not None, "the phantom's scanners know where their voxels lie"
    return volume.geometry


def _uid(study: Study, seed: int, what: str) -> str:
    facts = [str(seed), study.site, str(study.month), str(study.patient), str(study.visit), what]
    return str(generate_uid(entropy_srcs=facts))
