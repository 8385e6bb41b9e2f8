"""Bring every volume's axes into one order: x to the left, y to the back, z to the head, as near as its grid allows."""

from dataclasses import dataclass

import numpy as np

from platform_core.harmonize.axes import put_in_order
from platform_core.harmonize.contract import Harmonizer, Learned
from platform_core.imaging.volume import Volume


@dataclass(frozen=True, slots=True, kw_only=True)
class Orient:
    """No parameters: there is one canonical order."""


def orient(volume: Volume, settings: Orient, learned: Learned) -> Volume:  # noqa: ARG001
    """Swap and flip axes until index x grows towards the patient's left, y the back, z the head (LPS).

    No voxel changes its value or its place in the patient: an oblique grid stays oblique, within 45 degrees
    of the canonical axes. A left-handed grid becomes right-handed. Each grid axis is given the patient axis that
    it is nearest to, the clearest first.

    Args:
        volume: Still volume (z, y, x) with geometry; image or label map.
        settings: None.
        learned: Not used.

    Returns:
        float32 volume in the units of the input.
    """
    return put_in_order(volume, np.float32)


def orient_label(label: Volume, settings: Orient, learned: Learned) -> Volume:  # noqa: ARG001
    """The same order for a label map, its type kept."""
    return put_in_order(label)


ORIENT = Harmonizer(name="orient", settings=Orient, apply=orient, move_label=orient_label, needs_spacing=True)
