"""What every harmonizer promises.

`fit` sees data and returns parameters; `apply` sees parameters and returns a volume.
Learned parameters are JSON and travel in the manifest, so any worker repeats any result.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from platform_core.imaging.volume import Volume

Learned = dict[str, Any]
"""JSON-able parameters that a fit found; empty for a fixed method."""

Fit = Callable[[Any, Sequence[Volume], Learned | None], Learned]
Apply = Callable[[Volume, Any, Learned], Volume]


def nothing_to_learn(settings: Any, sample: Sequence[Volume], reference: Learned | None) -> Learned:  # noqa: ARG001
    """The fit of a fixed method."""
    return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Harmonizer:
    """One way to bring volumes closer to a reference.

    Contract: volumes are still, (z, y, x). `apply` leaves its input alone, is deterministic, keeps
    the grid unless it moves labels, and gives finite float32 voxels even for a constant volume. `fit` gets its own
    settings, a sample of volumes as the steps before it left them, and what the same step
    learned at the reference (None when the reference itself is fitted). A scan that it cannot work on
    raises `UnreadableScan` with a reason.
    """

    name: str
    settings: type[Any]
    """A frozen dataclass of the parameters that a recipe may set; pydantic annotations give their ranges."""
    apply: Apply
    fit: Fit = nothing_to_learn
    move_label: Apply | None = None
    """Brings a label map onto the grid that `apply` gives its image: exactly for those that change the grid."""
    needs_spacing: bool = False
    """True: skipped, with a reason, on plain images that have no spacing."""
    version: int = 1
    """Grows when the same parameters give other voxels: it is part of a recipe's name, so no old result is served."""

    @property
    def changes_grid(self) -> bool:
        """Whether voxels may end up on another grid."""
        return self.move_label is not None
