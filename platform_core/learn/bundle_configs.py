"""What MONAI reads of a bundle: `metadata.json` in its schema, and `inference.json`, which runs with MONAI alone.

The steps repeat `data.frame` and the calibration to rounding error; nothing of this platform is imported by them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from platform_core.learn.calibrate import Platt
from platform_core.learn.data import Framing
from platform_core.learn.networks import NETWORKS
from platform_core.learn.segment import HALF_A_VOXEL, SURE
from platform_core.manifest.serving import Calibration

SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
FIRST_VOLUME = "$lambda image: image[:1].permute(0, 3, 2, 1).contiguous()"
"""MONAI reads (t, x, y, z), the network takes (1, z, y, x)."""
FIRST_PLANE = "$lambda image: image[0].reshape(image.shape[1:3]).T[None].contiguous()"
"""(c, x, y) or (c, x, y, 1) to (1, y, x)."""
PAD = (
    "$lambda image: torch.nn.functional.pad(image, [n for want, have in zip({reversed}, image.shape[:0:-1]) for n in "
    "(max(want - have, 0) // 2, max(want - have, 0) - max(want - have, 0) // 2)], value=float(image.min()))"
)
CROP = (
    "$lambda image: image[(slice(None), *[slice((have - want) // 2, (have - want) // 2 + want) "
    "for have, want in zip(image.shape[1:], {grid})])]"
)
ONE_LOGIT = "$lambda out: out.item()"
SHARE_LOGIT = (
    "$lambda out: (lambda p: (lambda sure: math.log(sure + {half}) - math.log(p.numel() - sure + {half}))"
    "((p * (p >= {sure})).sum().item()))(out.float().sigmoid())"
)
"""Of a segmentation: log-odds of the share of the scan that its sure voxels fill, as `segment.py` says it."""
PLACED = (
    "$lambda marks, shape: (lambda padded: padded[(slice(None), *[slice((have - want) // 2, (have - want) // 2 + want) "
    "for have, want in zip(padded.shape[1:], shape[2::-1])])])(torch.nn.functional.pad(marks, [n for want, have in "
    "zip(shape, marks.shape[:0:-1]) for n in (max(want - have, 0) // 2, "
    "max(want - have, 0) - max(want - have, 0) // 2)]))"
)
"""Marks (1, z, y, x) on the network's grid, back on that of the file, (x, y, z)."""
SAVED_MARKS = (
    "$lambda path, marks: @mask_dir and nibabel.save(nibabel.Nifti1Image(marks[0].permute(2, 1, 0).numpy(), "
    "nibabel.load(path).affine), os.path.join(@mask_dir, os.path.basename(path)))"
)
MARKED = (
    "$lambda path, out: (lambda marks: (@save_marks(path, marks), {'n_marked_voxels': int(marks.sum())})[1])"
    "(@placed((out[0].sigmoid() >= @threshold).to(torch.uint8), nibabel.load(path).shape))"
)
MARKED_PLANE = "$lambda path, out: {'n_marked_of_grid': int((out.sigmoid() >= @threshold).sum())}"
RESIZE = "$lambda image: torch.nn.functional.interpolate(image[None], {grid}, mode='bilinear', antialias=True)[0]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What turns a framed volume into a probability: the part of a bundle that is no weight."""

    network: str
    framing: Framing
    platt: Platt
    calibration: Calibration


def is_repeated(steps: Sequence[Mapping[str, Any]], framing: Framing) -> bool:
    """Whether a fitted recipe does nothing but what `inference.json` does anyway: then that takes native volumes."""
    if not steps:
        return True
    clips = [step["settings"] for step in steps if step["harmonizer"] == "clip_intensity"]
    return len(steps) == len(clips) == 1 and (clips[0]["low"], clips[0]["high"]) == framing.window


def inference_config(answers: Answers) -> dict[str, Any]:
    """`configs/inference.json`: `python -m monai.bundle run --config_file configs/inference.json --image FILE`.

    A file in, `{image, score, probability}` out, printed and, where `output` names a file, written there. A
    segmentation also says how many voxels it marks, and writes them as a mask into the folder `mask_dir`.
    """
    dimensions = len(answers.framing.grid)
    return {
        "imports": [f"$import {name}" for name in ("glob", "json", "math", "nibabel", "os", "types")],
        "bundle_root": ".",
        "dataset_dir": "input",
        "image": None,
        "images": "$[@image] if @image else sorted(glob.glob(os.path.join(@dataset_dir, '*')))",
        "output": None,
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "slope": answers.platt.slope,
        "intercept": answers.platt.intercept,
        "scale": answers.calibration.scale,
        "logit_offset": answers.calibration.logit_offset,
        "threshold": answers.calibration.threshold,
        "network_def": NETWORKS[answers.network].definition(dimensions),
        "checkpoint": "$os.path.join(@bundle_root, 'models', 'model.pt')",
        "network": "$(@network_def.load_state_dict(torch.load(@checkpoint, map_location='cpu', weights_only=True)), "
        "@network_def.to(@device).eval())[1]",
        "load": _load(dimensions),
        "preprocessing": {"_target_": "Compose", "transforms": ["@load", *_framing(answers.framing)]},
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': path} for path in @images]",
            "transform": "@preprocessing",
        },
        "inferer": {"_target_": "SimpleInferer"},
        "answer": "$lambda item: @inferer(item['image'][None].to(@device), @network).cpu()",
        **_read_out(answers),
        "score": "$lambda out: @slope * @logit(out) + @intercept",
        "probability": "$lambda score: torch.sigmoid(torch.tensor(@scale * score + @logit_offset)).item()",
        "evaluator": "$types.SimpleNamespace(run=torch.inference_mode()(lambda: [{'image': os.path.basename(path), "
        "'score': score, 'probability': @probability(score), **@marked(path, out)} "
        "for path, item in zip(@images, @dataset) for out in [@answer(item)] for score in [@score(out)]]))",
        "save": "$lambda text: (print(text), @output and open(@output, 'w', encoding='utf-8').write(text))",
        "run": ["$@save(json.dumps(@evaluator.run(), indent=1))"],
    }


def _read_out(answers: Answers) -> dict[str, Any]:
    """From what the network gives to one logit, and of a segmentation to the marked voxels of the file's grid."""
    if NETWORKS[answers.network].task == "classification":
        return {"logit": ONE_LOGIT, "marked": "$lambda path, out: {}"}
    logit = SHARE_LOGIT.format(half=HALF_A_VOXEL, sure=SURE)
    if len(answers.framing.grid) == 2:
        return {"logit": logit, "marked": MARKED_PLANE}
    return {"mask_dir": None, "logit": logit, "placed": PLACED, "save_marks": SAVED_MARKS, "marked": MARKED}


def harmonizing_config() -> dict[str, Any]:
    """`configs/harmonize.json`, read after `inference.json` where this platform is installed: takes native volumes."""
    recipe = "$os.path.join(@bundle_root, 'configs', 'recipe.json')"
    return {"load": {"_target_": "platform_core.learn.harmonized.LoadHarmonized", "recipe": recipe}}


def data_format(network: str, framing: Framing) -> dict[str, Any]:
    """`network_data_format` of the metadata: from one channel one logit of the positive class, or one per voxel."""
    marks_voxels = NETWORKS[network].task == "segmentation"
    channel = "intensity, window 0 to 1" if framing.window else "intensity, mean 0, standard deviation 1"
    return {
        "inputs": {
            "image": {
                "type": "image",
                "format": "magnitude",
                "num_channels": 1,
                "spatial_shape": list(framing.grid),
                "dtype": "float32",
                "value_range": [0, 1] if framing.window else [],
                "is_patch_data": False,
                "channel_def": {"0": channel},
            }
        },
        "outputs": {
            "pred": {
                "type": "image" if marks_voxels else "probabilities",
                "format": "logit",
                "num_channels": 1,
                "spatial_shape": list(framing.grid) if marks_voxels else [],
                "dtype": "float32",
                "value_range": [],
                "is_patch_data": False,
                "channel_def": {"0": "logit of the positive class, before any calibration"},
            }
        },
    }


def _load(dimensions: int) -> dict[str, Any]:
    reader = {"reader": "NibabelReader"} if dimensions == 3 else {}
    return {"_target_": "LoadImaged", "keys": "image", "ensure_channel_first": True, **reader}


def _framing(framing: Framing) -> list[dict[str, Any]]:
    """The steps of `data.frame`."""
    grid = list(framing.grid)
    is_plane = len(grid) == 2
    sized = [RESIZE.format(grid=grid)] if is_plane else [PAD.format(reversed=grid[::-1]), CROP.format(grid=grid)]
    return [
        {"_target_": "EnsureTyped", "keys": "image", "dtype": "$torch.float32", "track_meta": False},
        _by(FIRST_PLANE if is_plane else FIRST_VOLUME),
        _scaling(framing.window),
        *(_by(expression) for expression in sized),
    ]


def _scaling(window: tuple[float, float] | None) -> dict[str, Any]:
    if window is None:
        return {"_target_": "NormalizeIntensityd", "keys": "image"}
    low, high = window
    return {
        "_target_": "ScaleIntensityRanged",
        "keys": "image",
        "a_min": low,
        "a_max": high,
        "b_min": 0.0,
        "b_max": 1.0,
        "clip": True,
    }


def _by(expression: str) -> dict[str, Any]:
    return {"_target_": "Lambdad", "keys": "image", "func": expression}
