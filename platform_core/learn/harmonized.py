"""The first step of a bundle's inference where this platform is installed: a native volume, harmonized."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from platform_core.harmonize.recipe import FittedRecipe, apply_recipe
from platform_core.imaging.nifti import decode_volume


class LoadHarmonized:
    """Reads the NIfTI file under `image` and applies the bundle's recipe, as MONAI's transforms are called.

    Out comes what MONAI's own reader gives: a tensor (1, x, y, z), float32.
    """

    def __init__(self, recipe: str) -> None:
        steps = json.loads(Path(recipe).read_text(encoding="utf-8"))["steps"]
        self.recipe = FittedRecipe.from_json(json.dumps(steps))

    def __call__(self, item: Mapping[str, Any]) -> dict[str, Any]:
        """The item with its image read and harmonized.

        Raises:
            UnreadableScan: If the file is no volume, or a step cannot give one.
        """
        volume = apply_recipe(self.recipe, decode_volume(Path(item["image"]).read_bytes())).volume
        voxels = np.ascontiguousarray(volume.voxels.T[np.newaxis], dtype=np.float32)
        return {**item, "image": torch.from_numpy(voxels)}
