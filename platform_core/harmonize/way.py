"""How a scan of the reference becomes one of the site: where in the two recipes it is transported.

No harmonizer: it leads from the reference to the site, and only scans of the reference go this way.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from platform_core.errors import UnreadableScan
from platform_core.harmonize.band_gain import BAND_GAIN, BandGain, learn_spectrum
from platform_core.harmonize.contract import nothing_to_learn
from platform_core.harmonize.recipe import FittedRecipe, apply_recipe
from platform_core.harmonize.transport import Transport, learn_transport, transport_volume
from platform_core.imaging.usable import check_usable
from platform_core.imaging.volume import Volume

CT_BODY_HU = -500.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How a scan of the reference becomes one of the site.

    As far as `place` it goes through its own recipe, whose learned maps lead to one scale of intensities; there it is
    transported; from there on it goes the site's way, whose gains were learned on the site's blur and noise.
    """

    ours: FittedRecipe
    """As fitted to the site."""
    there: FittedRecipe
    """As fitted to the reference."""
    modality: str

    @property
    def place(self) -> int:
        """How many steps come before the transport: all that change the grid or learn a map of intensities."""
        before = [
            n
            for n, one in enumerate(self.ours.steps, start=1)
            if one.step.harmonizer.changes_grid
            or (one.step.harmonizer.fit is not nothing_to_learn and one.step.harmonizer is not BAND_GAIN)
        ]
        return max(before, default=0)

    @property
    def settings(self) -> BandGain:
        """What is foreground when spectra are learned: as the recipe says, else what suits the modality."""
        of_recipe = [one.step.settings for one in self.ours.steps if one.step.harmonizer is BAND_GAIN]
        own = BandGain(foreground_above=CT_BODY_HU if self.modality == "CT" else None)
        return next(iter(of_recipe), own)

    def learn(self, reference: Sequence[Volume], site: Sequence[Volume]) -> Transport | None:
        """The difference of the scanners from native volumes of either; None if it cannot be told."""
        placed_there = _placed(reference, FittedRecipe(self.there.steps[: self.place]))
        placed_here = _placed(site, FittedRecipe(self.ours.steps[: self.place]))
        return learn_transport(self.settings, placed_there, learn_spectrum(self.settings, placed_here, None)["site"])

    def show(self, volume: Volume, transport: Transport, *, seed: int) -> Volume:
        """A native volume of the reference as the site's recipe would leave the site's scan of the same patient.

        Raises:
            UnreadableScan: With its reason, if a step cannot give a volume.
        """
        check_usable(volume)
        placed = apply_recipe(FittedRecipe(self.there.steps[: self.place]), volume).volume
        if placed.geometry is None:
            raise UnreadableScan("needs_spacing", "nothing in mm can be said of a plain image")
        shown = transport_volume(placed, transport, seed=seed)
        made = apply_recipe(FittedRecipe(self.ours.steps[self.place :]), shown).volume
        check_usable(made)
        return made


def _placed(volumes: Sequence[Volume], steps: FittedRecipe) -> list[Volume]:
    """The volumes after some steps, without those that a step refuses."""
    placed = []
    for volume in volumes:
        try:
            check_usable(volume)
            placed.append(apply_recipe(steps, volume).volume)
        except UnreadableScan:
            continue
    return placed
