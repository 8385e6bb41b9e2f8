"""What may leave in a de-identified DICOM file: the table of PS3.15 Annex E, and the short list of what is kept.

`confidentiality.csv` is table E.1-1 of DICOM PS3.15, edition 2026c: tag, keyword (empty where the element is too
new for our dictionary), the action of the Basic Profile, and the columns of the options. Rows that are new since
2024d have no options here, so the Basic Profile holds. Private elements are a rule of their own, not a row.

An element that is neither in the table nor in one of the lists below is removed: the table names what is known to
identify, and nobody knows all of it. Kept are the attributes of PS3.3 that say how an image was made and where it
lies. Text is kept only in the few fields that a scanner fills, coded text only if it is a listed term.

The options: Clean Descriptors (free text goes, a contrast agent becomes a word), Retain Longitudinal Temporal
Information with Modified Dates, Retain Patient Characteristics (sex, size, weight, age up to 90), Retain Device
Identity (manufacturer, model and software; serial numbers and station names go), Retain Safe Private (below).
"""

# ruff: noqa: SIM905 - lists of terms read better as words
import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

from pydicom.datadict import dictionary_VR, keyword_for_tag, tag_for_keyword

from platform_core.dicom.header import BODY_PARTS, VIEWS
from platform_core.dicom.rules import MODALITIES

EDITION = "PS3.15 2026c"
METHOD = f"{EDITION} Annex E, Basic Profile, options as coded"
CODES = (
    ("113100", "Basic Application Confidentiality Profile"),
    ("113105", "Clean Descriptors Option"),
    ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    ("113108", "Retain Patient Characteristics Option"),
    ("113111", "Retain Safe Private Option"),
)
"""Context group 7050 of PS3.16: what was done, as code and meaning."""

Rule = Literal[
    "age", "bytes", "class", "contrast", "dummy", "empty", "graphics", "number", "patient", "pixels", "recurse",
    "remove", "replace", "sex", "term", "text", "time", "uid", "unlisted",
]  # fmt: skip

NUMBERS = frozenset(
    # C.7.6.1 to C.7.6.3 and C.7.6.16: image, plane and pixels
    "InstanceNumber SeriesNumber AcquisitionNumber NumberOfFrames ImagesInAcquisition TemporalPositionIdentifier "
    "NumberOfTemporalPositions TemporalResolution TemporalPositionIndex InStackPositionNumber DimensionIndexValues "
    "FrameAcquisitionNumber ImagePositionPatient ImageOrientationPatient PixelSpacing ImagerPixelSpacing "
    "NominalScannedPixelSpacing PixelAspectRatio SliceThickness SpacingBetweenSlices SliceLocation SamplesPerPixel "
    "Rows Columns BitsAllocated BitsStored HighBit PixelRepresentation PlanarConfiguration SmallestImagePixelValue "
    "LargestImagePixelValue PixelPaddingValue PixelPaddingRangeLimit RescaleSlope RescaleIntercept WindowCenter "
    "WindowWidth LossyImageCompressionRatio FrameIncrementPointer DimensionIndexPointer "
    "FunctionalGroupPointer "
    # C.8.2 and C.8.15: CT
    "KVP DataCollectionDiameter ReconstructionDiameter DistanceSourceToDetector DistanceSourceToPatient "
    "GantryDetectorTilt TableHeight ExposureTime XRayTubeCurrent Exposure ExposureInuAs ExposureTimeInms "
    "ExposureTimeInuS XRayTubeCurrentInuA XRayTubeCurrentInmA ExposureInmAs GeneratorPower FocalSpots "
    "SingleCollimationWidth TotalCollimationWidth TableSpeed TableFeedPerRotation SpiralPitchFactor RevolutionTime "
    "CTDIvol ReconstructionAngle ReconstructionFieldOfView ReconstructionPixelSpacing TubeAngle "
    "DataCollectionCenterPatient ReconstructionTargetCenterPatient TablePosition WaterEquivalentDiameter "
    # C.8.3 and C.8.13: MR
    "RepetitionTime EchoTime InversionTime NumberOfAverages ImagingFrequency EchoNumbers MagneticFieldStrength "
    "NumberOfPhaseEncodingSteps EchoTrainLength PercentSampling PercentPhaseFieldOfView PixelBandwidth FlipAngle SAR "
    "dBdt B1rms TriggerTime TriggerWindow HeartRate CardiacNumberOfImages AcquisitionMatrix EffectiveEchoTime "
    "DiffusionBValue DiffusionGradientOrientation DiffusionBValueXX DiffusionBValueXY DiffusionBValueXZ "
    "DiffusionBValueYY DiffusionBValueYZ DiffusionBValueZZ InversionTimes TransmitterFrequency RFEchoTrainLength "
    "GradientEchoTrainLength MRAcquisitionFrequencyEncodingSteps MRAcquisitionPhaseEncodingStepsInPlane "
    "MRAcquisitionPhaseEncodingStepsOutOfPlane ParallelReductionFactorInPlane ParallelReductionFactorOutOfPlane "
    "FrameAcquisitionDuration AcquisitionDuration NominalPercentageOfCardiacPhase VelocityEncodingMaximumValue "
    "VelocityEncodingMinimumValue "
    # C.8.9: PET
    "RadiopharmaceuticalVolume RadionuclideTotalDose RadionuclideHalfLife RadionuclidePositronFraction "
    "RadiopharmaceuticalSpecificActivity AxialAcceptance AxialMash FrameReferenceTime ActualFrameDuration DecayFactor "
    "DoseCalibrationFactor ScatterFractionFactor DeadTimeFactor ImageIndex NumberOfSlices NumberOfTimeSlices "
    # C.8.11 and C.8.19: radiographs
    "DistanceSourceToEntrance EntranceDose EntranceDoseInmGy OrganDose RelativeXRayExposure Sensitivity "
    "BodyPartThickness CompressionForce PositionerPrimaryAngle PositionerSecondaryAngle "
    "EstimatedRadiographicMagnificationFactor "
    "FieldOfViewDimensions FieldOfViewOrigin FieldOfViewRotation DetectorElementPhysicalSize DetectorElementSpacing "
    "DetectorBinning ExposureIndex TargetExposureIndex DeviationIndex HalfValueLayer".split()
)
PATIENT_NUMBERS = frozenset({"PatientSize", "PatientWeight"})
"""In the table, and kept by the option Retain Patient Characteristics."""

TERM_FIELDS = frozenset(
    "ImageType FrameType Modality BodyPartExamined ViewPosition Laterality ImageLaterality FrameLaterality "
    "PatientPosition PhotometricInterpretation BurnedInAnnotation RecognizableVisualFeatures LossyImageCompression "
    "LossyImageCompressionMethod PixelPresentation VolumetricProperties VolumeBasedCalculationTechnique "
    "PresentationLUTShape PixelIntensityRelationship RescaleType VOILUTFunction ContentQualification "
    "ScanningSequence SequenceVariant ScanOptions MRAcquisitionType AngioFlag InPlanePhaseEncodingDirection "
    "VariableFlipAngleFlag ComplexImageComponent AcquisitionContrast EchoPulseSequence EchoPlanarPulseSequence "
    "InversionRecovery FlowCompensation Spoiling T2Preparation MagnetizationTransfer BloodSignalNulling Tagging "
    "SpectrallySelectedExcitation SpatialPresaturation ParallelAcquisition PartialFourier DiffusionDirectionality "
    "ReceiveCoilType TransmitCoilType RotationDirection ExposureModulationType FilterType FilterMaterial "
    "AnodeTargetMaterial "
    "AcquisitionType ReconstructionAlgorithm DetectorType SeriesType Units CountsSource CorrectedImage "
    "DecayCorrection AttenuationCorrectionMethod ImagedNucleus ResonantNucleus ExposureControlMode Grid "
    "FieldOfViewShape PatientOrientation".split()
)
TERMS = (
    BODY_PARTS
    | VIEWS
    | MODALITIES
    | frozenset(
        "ORIGINAL DERIVED PRIMARY SECONDARY AXIAL LOCALIZER SCOUT MOSAIC MIXED OTHER NONE YES NO Y N ND NORM "
        "DIS2D DIS3D DFC FM FIL M P PHASE MAGNITUDE R REAL I IMAGINARY ADC FA TRACEW DIFFUSION B0 SUB MIP MPR "
        "MINIP AVERAGE MEAN MEDIAN PROJECTION PROJECTION_IMAGE REFORMATTED VOLUME SAMPLED DISTORTED RESAMPLED "
        "WATER FAT W F IN_PHASE OUT_PHASE IP OP T1 T2 T2_STAR T1_MAP T2_MAP R2_MAP P_FFE P_SE R_FFE R_SE "
        "I_FFE I_SE FFE M_FFE M_SE M_IR SE IR GR EP RM PROTON_DENSITY FLUID_ATTENUATED PERFUSION FLOW_ENCODED "
        "TAGGING STIR TOF UNKNOWN SK MTC SS TRSS SP MP OSP PER RG CG PPG FC PFF PFP FS ACC_GEMS EDR_GEMS "
        "EPI_GEMS FAST_GEMS FILTERED_GEMS FSL_GEMS IR_GEMS NPW PFF_GEMS SEQ_GEMS TRF_GEMS VASCTOF_GEMS 2D 3D "
        "ROW COL COLUMN HFS HFP HFDR HFDL FFS FFP FFDR FFDL HEAD FEET MONOCHROME MONOCHROME1 MONOCHROME2 L B "
        "U A H AL AR LH LF RH RF PH PF AH AF LP RP HL HR FR FL LA RA HA HP FP 00 01 ISO_10918_1 ISO_14495_1 "
        "ISO_15444_1 COLOR IDENTITY INVERSE LIN LOG LINEAR LINEAR_EXACT SIGMOID SQRT HU US OD ED EDW HU_MOD "
        "PRODUCT RESEARCH SERVICE SPIN GRADIENT BOTH RF_GRADIENT DIRECTIONAL BMATRIX ISOTROPIC BODY SURFACE "
        "MULTICOIL EXTREMITY PHASED_ARRAY TEM ALL ACCELERATION PILS SENSE SMASH GRAPPA SLAB CW CC FIXED "
        "SPIRAL SEQUENCED CONSTANT_ANGLE STATIONARY FREE FILTER_BACK_PROJ ITERATIVE XYZ_EC Z_EC XYEC "
        "ANGULAR_EC WEDGE BUTTERFLY MULTIPLE STRIP FLAT BOWTIE SMALL LARGE MEDIUM ALUMINUM COPPER MOLYBDENUM "
        "RHODIUM SILVER TUNGSTEN BERYLLIUM DIRECT SCINTILLATOR STORAGE FILM WHOLE_BODY DYNAMIC GATED STATIC "
        "IMAGE REPROJECTION CNTS CM2 PCNT CPS BQML MGMINML UMOLMINML MLMING MLG 1CM UMOLML PROPCNTS PROPCPS "
        "MLMINML MLML GML STDDEV DECY ATTN SCAT DTIM MOTN PMOT CLN RAN RADL DCAL START ADMIN MEASURED "
        "CALCULATED 1H 3HE 7LI 13C 19F 23NA 31P 129XE AUTOMATIC MANUAL IN RECTANGLE ROUND HEXAGONAL FOCUSED "
        "PARALLEL CROSSED RECIPROCATING".split()
    )
)
"""Defined and enumerated terms of PS3.3 and the vendors' usual image types; a word that is none of these goes."""
OPEN_FIELDS = frozenset({"ImageType", "FrameType"})
"""Their values count by place: an unknown one becomes OTHER."""

TEXTS = frozenset(
    "Manufacturer ManufacturerModelName SoftwareVersions ConvolutionKernel SequenceName PulseSequenceName "
    "StackID".split()
)
"""What a scanner fills by itself; each value is still held against the patient's identifiers."""

CLASSES = frozenset("SOPClassUID ReferencedSOPClassUID".split())
SEQUENCES = frozenset(
    "SharedFunctionalGroupsSequence PerFrameFunctionalGroupsSequence PixelMeasuresSequence PlanePositionSequence "
    "PlaneOrientationSequence PixelValueTransformationSequence FrameContentSequence FrameVOILUTSequence "
    "FrameAnatomySequence DimensionOrganizationSequence DimensionIndexSequence TemporalPositionSequence "
    "MRImageFrameTypeSequence CTImageFrameTypeSequence PETFrameTypeSequence MRTimingAndRelatedParametersSequence "
    "MREchoSequence MRModifierSequence MRImagingModifierSequence MRAveragesSequence MRFOVGeometrySequence "
    "MRDiffusionSequence DiffusionGradientDirectionSequence DiffusionBMatrixSequence MRVelocityEncodingSequence "
    "CTAcquisitionTypeSequence CTAcquisitionDetailsSequence CTTableDynamicsSequence CTPositionSequence "
    "CTGeometrySequence CTReconstructionSequence CTExposureSequence CTXRayDetailsSequence "
    "RadiopharmaceuticalInformationSequence".split()
)
REFERENCES = frozenset("ReferencedImageSequence SourceImageSequence".split())
"""In the table as U: kept, with their UIDs mapped."""
OFFSETS = frozenset({"ExtendedOffsetTable", "ExtendedOffsetTableLengths"})

SPECIAL: dict[str, Rule] = {
    "PatientName": "patient",
    "PatientID": "patient",
    "PatientAge": "age",
    "PatientSex": "sex",
    "ContrastBolusAgent": "contrast",
    "ContrastBolusAgentSequence": "contrast",
    "DeviceSerialNumber": "dummy",
    "PixelData": "pixels",
    "PatientIdentityRemoved": "replace",
    "DeidentificationMethod": "replace",
    "DeidentificationMethodCodeSequence": "replace",
    "LongitudinalTemporalInformationModified": "replace",
    "SpecificCharacterSet": "replace",
}

SAFE_PRIVATE: dict[tuple[str, int, int], str] = {
    ("SIEMENS MR HEADER", 0x0019, 0x0C): "IS",
    ("SIEMENS MR HEADER", 0x0019, 0x0E): "FD",
    ("SIEMENS MR HEADER", 0x0019, 0x27): "FD",
    ("GEMS_PARM_01", 0x0043, 0x39): "IS",
    ("GEMS_ACQU_01", 0x0019, 0x23): "DS",
    ("GEMS_ACQU_01", 0x0019, 0x27): "DS",
    ("Philips Imaging DD 001", 0x2001, 0x03): "FL",
    ("Philips MR Imaging DD 001", 0x2005, 0x0D): "FL",
    ("Philips MR Imaging DD 001", 0x2005, 0x0E): "FL",
    ("Philips PET Private Group", 0x7053, 0x00): "DS",
    ("Philips PET Private Group", 0x7053, 0x09): "DS",
}
"""PS3.15 table E.3.10-1, the numbers among it that pixels need: b-values and directions, table and scale factors.

By creator, group and the last byte of the element. Text of that table is not kept."""

TEMPORAL = frozenset({"DA", "DT", "TM"})


@dataclass(frozen=True, slots=True)
class Row:
    """One row of table E.1-1 as we use it."""

    tag: int
    basic: str
    """Action of the Basic Profile: D, Z, X, K, C, U, or a choice of them."""
    is_moved: bool
    """Whether Modified Dates lets it stay, cleaned."""


@cache
def table() -> dict[int, Row]:
    """Table E.1-1 by tag; repeating groups are not in it, `rule_of` knows them."""
    lines = files("platform_core.dicom").joinpath("confidentiality.csv").read_text(encoding="utf-8").splitlines()
    rows = (row for row in csv.DictReader(lines) if "X" not in row["tag"])
    return {(tag := int(row["tag"], 16)): Row(tag, row["basic"], row["modified_dates"] == "C") for row in rows}


@cache
def rule_of(tag: int) -> Rule:
    """What happens to a standard element; private ones (odd groups) are not asked for here."""
    if tag >> 24 in (0x50, 0x60) and not tag >> 16 & 1:
        return "graphics"
    keyword = keyword_for_tag(tag)
    if keyword in SPECIAL:
        return SPECIAL[keyword]
    row = table().get(tag)
    return _kept(keyword) if row is None else _listed(row, keyword)


def _listed(row: Row, keyword: str) -> Rule:
    vr = dictionary_VR(row.tag) if keyword else ""
    if row.is_moved and vr in TEMPORAL:
        return "time"
    if keyword in PATIENT_NUMBERS:
        return "number"
    if keyword in REFERENCES:
        return "recurse"
    if "U" in row.basic and vr == "UI":
        return "uid"
    if row.basic.startswith("Z") and vr != "SQ":
        return "empty"
    return "dummy" if row.basic == "D" and vr != "SQ" else "remove"


def _kept(keyword: str) -> Rule:
    lists: tuple[tuple[frozenset[str], Rule], ...] = (
        (NUMBERS, "number"),
        (TERM_FIELDS, "term"),
        (TEXTS, "text"),
        (CLASSES, "class"),
        (SEQUENCES, "recurse"),
        (OFFSETS, "bytes"),
    )
    return next((rule for names, rule in lists if keyword in names), "unlisted")


def kept_keywords() -> frozenset[str]:
    """Everything that is kept without being in the table."""
    return NUMBERS | TERM_FIELDS | TEXTS | CLASSES | SEQUENCES | OFFSETS


def tag_named(keyword: str) -> int:
    """The tag of a keyword of the standard."""
    tag = tag_for_keyword(keyword)
    assert tag is not None, keyword
    return int(tag)
