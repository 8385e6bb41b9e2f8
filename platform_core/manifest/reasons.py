"""Why a file or series did not become a volume: every code that the ledger may hold, what it means, what to do.

Codes are a promise: a code keeps its meaning, and no code is used twice.
"""

REASONS: dict[str, tuple[str, str]] = {
    # ignored by rule
    "not_dicom": ("no DICOM file", "nothing, unless it should be one"),
    "directory": ("a DICOMDIR", "nothing"),
    "not_an_image": ("a report, structure, plan, segmentation or waveform; or no image at all", "nothing"),
    "secondary_capture": ("a screen shot or scanned paper", "nothing: names are written on these"),
    "screen_save": ("a result or dose screen filed as an image", "nothing: names are written on these"),
    "localizer": ("a scout or localizer", "nothing"),
    "other_modality": ("a modality that this platform does not measure", "nothing"),
    "gone_before_read": ("listed, then gone in two runs", "send it again if it matters"),
    "withdrawn": ("of a patient who was withdrawn", "nothing; remove it at the source"),
    # duplicate
    "same_pixels": ("the same instance in another file", "nothing"),
    "same_voxels": ("the same voxels as another series of the site", "nothing: the first one counts"),
    # waiting
    "still_arriving": ("its series changed within `quiet_s`", "run again later"),
    "not_at_rest": ("gone or growing when it was read", "run again"),
    "earlier_files_gone": ("a late file of a series whose earlier files are gone", "put them back and run again"),
    "source_unavailable": ("the source did not hand it out", "run again; look at the server if it stays"),
    # quarantined: the file
    "unreadable_header": ("the header is broken or nested beyond reason", "send it again from the archive"),
    "no_modality": ("no modality", "correct it at the source"),
    "no_series_uid": ("no SeriesInstanceUID", "correct it at the source"),
    "no_instance_uid": ("no SOPInstanceUID", "correct it at the source"),
    "no_matrix": ("no rows and columns", "send it again"),
    "no_pixels": ("no pixels", "send it again: an empty shell"),
    "truncated": ("ends early", "send it again"),
    "undecodable": ("the pixels cannot be decoded", "send it again, or in another transfer syntax"),
    "bits": ("a number of bits per pixel that images do not have", "correct it at the source"),
    "colour": ("a colour image", "nothing: this platform measures grey images"),
    "bad_rescale": ("a slope or intercept that is no number", "correct it at the source; it is never invented"),
    "modality_lut": ("values whose meaning stands in a table", "send them with slope and intercept"),
    "too_large": ("larger, or claiming to be larger, than any scan", "look at it: it may be an attack"),
    "unreadable_image": ("an image file that cannot be read", "send it again"),
    "grid_too_large": ("more voxels by the recipe than 2^29", "look at its spacing; choose a coarser grid"),
    "empty_foreground": ("nothing that stands out from the background", "look at it: an empty image"),
    "foreground_not_positive": (
        "a foreground whose typical value is not above zero",
        "take the step out of the recipe",
    ),
    "no_tissue_peak": ("no peak of tissue in the histogram", "look at it; or normalise by another step of a recipe"),
    "bias_field_failed": ("a bias field that could not be estimated", "look at it; or take the step out"),
    "no_reference_stratum": ("of a stratum that the reference has no scan of", "nothing: it is compared with nothing"),
    "no_day": ("without any day", "correct it at the source"),
    "memory_budget": ("a volume that needs more memory than is allowed", "raise SITEDRIFT_MEMORY_GIB"),
    "too_small": ("fewer pixels than can be measured", "nothing"),
    "constant": ("one value everywhere", "look at it: an empty image"),
    "not_finite": ("values that are no numbers", "correct it at the source"),
    "not_nifti": ("no NIfTI, whatever its name says", "send it again"),
    "axes": ("not two to four axes", "correct it at the source"),
    "sheared": ("axes that are not at right angles", "correct it at the source"),
    "no_spacing": ("an axis without length", "correct it at the source"),
    "bad_spacing": ("a spacing that no scanner has", "correct it at the source"),
    "bad_direction": ("axes of the grid that are no unit vectors at right angles", "correct it at the source"),
    # quarantined: identity
    "conflicting_copies": ("files of one instance with different pixels", "find out which is right, remove the other"),
    "conflicting_patients": ("files of one series with different patients", "correct it at the source"),
    "burned_in_text": ("what looks like text in the pixels", "look at it; quarantine release if it names nobody"),
    "burned_in_stated": ("the header says that text is in the pixels", "remove it from the pixels at the source"),
    "dose_screen": ("a dose screen", "nothing: names are written on these"),
    "known_screen": ("a screen on which names were found before", "nothing: names are written on these"),
    "screen_modality": ("a kind of image on which names are the rule", "nothing"),
    # quarantined: geometry
    "no_orientation": ("no ImageOrientationPatient", "correct it at the source; it is never invented"),
    "no_position": ("no ImagePositionPatient", "correct it at the source; it is never invented"),
    "no_pixel_spacing": ("no PixelSpacing", "correct it at the source; it is never invented"),
    "bad_orientation": ("axes that are no unit vectors at right angles", "correct it at the source"),
    "mixed_orientation": ("slices that are not parallel", "send the stacks as series of their own"),
    "uneven_pixel_spacing": ("pixel spacing that changes within the volume", "correct it at the source"),
    "gantry_tilt": ("a tilted gantry: the stack is sheared", "resample it at the source, or leave it out"),
    "shifted_slices": ("slices that slide sideways", "look at it"),
    "missing_slices": ("slices are missing", "send them: the series heals when they come"),
    "uneven_spacing": ("slices at uneven distances", "look at it"),
    "duplicate_positions": ("some places are taken twice, others once", "look at it"),
    "slice_spacing_unknown": ("one slice of unknown thickness", "correct it at the source"),
    "multi_frame": ("several frames, and nothing that places them", "correct it at the source; it is never invented"),
    "frame_count": ("more or fewer frames than are described", "send it again"),
    "radiograph_frames": ("a radiograph of several frames, such as breast tomosynthesis", "nothing: not measured here"),
    "mosaic": ("a Siemens mosaic without the header that places its slices", "send it with private elements"),
    # quarantined: what a source must not open
    "link_leads_out": ("a link to something outside the folder", "copy the file in"),
    "unreadable_path": ("this user may not read it, or its path is too long", "correct its rights"),
    "unreadable_archive": ("no zip, or torn", "send it again"),
    "encrypted_archive": ("every member needs a password", "send it without one"),
    "encrypted_member": ("a member that needs a password", "send it without one"),
    "archive_bomb": ("more members or bytes than an archive of scans has", "look at it: it may be an attack"),
    "member_too_large": ("a member larger than any scan", "look at it"),
    "object_too_large": ("an object larger than any scan", "look at it"),
    "cold_storage": ("an object in an archive class of its bucket", "restore it, then quarantine replay"),
    "unreadable_object": ("an object that the server lists and does not hand out", "store it without a key of its own"),
    "unsafe_member_name": ("a member whose name could do harm as a path", "pack it anew"),
    "unsafe_member_kind": ("a member that is a link", "pack the file itself"),
    "ambiguous_member": ("two members of one name", "pack it anew"),
    "ambiguous_name": ("a plain file whose name looks like a member of an archive", "rename it"),
    "nested_archive": ("an archive in an archive", "unpack the inner one"),
    "unsupported_compression": ("a member neither stored nor deflated", "pack it anew"),
    "damaged_member": ("a member that is torn", "send it again"),
    "unsafe_uid": ("a server named an object by something that is no UID", "look at the server"),
}


def meaning(reason: str) -> str:
    """What a code means and what to do; a rule of the quality stage speaks for itself in `out__quality`."""
    if reason not in REASONS:
        return "a rule of the quality stage: see `because` in out__quality"
    what, remedy = REASONS[reason]
    return f"{what}; {remedy}"
