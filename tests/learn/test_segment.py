"""A U-Net in blocks is MONAI's, a loss and an overlap are what they say, and masks go the way of their image."""

from copy import deepcopy
from datetime import date
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from platform_core.errors import BadRequest
from platform_core.harmonize.recipe import Recipe, apply_recipe, fit_recipe, move_label, parse_recipe
from platform_core.imaging.volume import Geometry, Volume
from platform_core.learn import cross_validate
from platform_core.learn.augment import augment
from platform_core.learn.data import Framing, Loaded, Masks, Scan
from platform_core.learn.embedding import answers
from platform_core.learn.fit import fit
from platform_core.learn.losses import scan_losses
from platform_core.learn.masks import frame_mask
from platform_core.learn.networks import NETWORKS, Classifier, build_network, public_names, require_fit
from platform_core.learn.phases import TrainingSet
from platform_core.learn.segment import dice, segment
from platform_core.learn.strategies import STRATEGIES
from platform_core.learn.trained import some
from platform_core.settings import StepSettings, TrainSettings

pytestmark = pytest.mark.usefixtures("one_thread")
NONE_OUTSIDE = np.zeros(1, dtype=np.int64)


def planes(n: int = 8) -> TrainingSet:
    """Noise with a bright square, and where it is."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(0.3, 0.05, (n, 1, 16, 16)), np.zeros((n, 1, 16, 16))
    for i in range(n):
        row, column = rng.integers(2, 9, 2)
        y[i, 0, row : row + 5, column : column + 5] = 1
    scans = torch.from_numpy((x + 0.5 * y).astype(np.float32))
    return TrainingSet(x=scans, y=torch.from_numpy(y.astype(np.uint8)), weight=torch.ones(n))


@pytest.mark.parametrize("grid", [(16, 16), (16, 17, 19)], ids=["2d", "3d"])
def test_the_blocks_give_what_monais_network_gives(grid: tuple[int, ...]) -> None:
    ours, whole = build_network("unet_tiny", len(grid)), NETWORKS["unet_tiny"].whole(len(grid))
    names = public_names("unet_tiny", len(grid))
    whole.load_state_dict({public: ours.state_dict()[name] for public, name in names.items()})
    x = torch.randn(2, 1, *grid, generator=torch.Generator().manual_seed(0))
    assert torch.equal(ours.eval()(x), whole.eval()(x))
    assert ours.marks_voxels
    assert not build_network("resnet_tiny", 2).marks_voxels


def test_a_network_of_the_other_task_is_refused_by_name() -> None:
    with pytest.raises(BadRequest, match="set `network` to: unet, unet_tiny"):
        require_fit("resnet_tiny", (16, 16), "segmentation")
    with pytest.raises(BadRequest, match="needs 16 voxels"):
        require_fit("unet_tiny", (16, 12), "segmentation")


def test_the_loss_of_a_mask_is_cross_entropy_and_one_less_dice() -> None:
    logits, y = torch.tensor([[[2.0, -1.0, 0.5, -3.0]]]), torch.tensor([[[1, 0, 0, 0]]], dtype=torch.uint8)
    p = 1 / (1 + np.exp(-logits.numpy().ravel()))
    entropy = -(np.log(p[0]) + np.log1p(-p[1:]).sum()) / 4
    soft = 1 - (2 * p[0] + 1) / (p.sum() + 1 + 1)
    assert float(scan_losses(logits, y)) == pytest.approx(entropy + soft, rel=1e-6)


def test_an_empty_mask_costs_more_the_more_is_marked() -> None:
    y = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    much, little = scan_losses(torch.stack([torch.zeros(1, 4, 4), torch.full((1, 4, 4), -5.0)]), y)
    assert torch.isfinite(much)
    assert much > little > 0


def test_dice_counts_what_was_drawn_outside_the_grid_as_missed() -> None:
    marks, truth = np.array([[[1, 1, 0, 0]]], dtype=np.uint8), np.array([[[1, 0, 1, 0]]], dtype=np.uint8)
    assert dice(marks, truth, NONE_OUTSIDE).tolist() == [0.5]
    assert dice(marks, truth, NONE_OUTSIDE + 4).tolist() == [0.25]


def test_dice_of_nothing_is_one_where_nothing_was_marked_and_else_zero() -> None:
    empty, some = np.zeros((1, 1, 4), dtype=np.uint8), np.ones((1, 1, 4), dtype=np.uint8)
    assert dice(empty, empty, NONE_OUTSIDE).tolist() == [1.0]
    assert dice(some, empty, NONE_OUTSIDE).tolist() == [0.0]
    assert dice(empty, some, NONE_OUTSIDE).tolist() == [0.0]


def test_masks_are_flipped_with_their_scans() -> None:
    data = planes()
    x, y = augment(data.x, data.y, torch.Generator().manual_seed(1))
    assert not torch.equal(y, data.y)
    for scan, mask in zip(x, y, strict=True):
        assert scan[mask == 1].mean() > scan[mask == 0].mean() + 0.3


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_moves_the_blocks_of_a_unet_that_it_names_and_no_others(name: str) -> None:
    network, strategy = build_network("unet_tiny", 2), STRATEGIES[name]
    before = deepcopy(network)
    fit(network, planes(4), strategy, TrainSettings(epochs=1, batch_size=4, learning_rate=1e-2))
    trained = {block for phase in strategy.phases for block in phase.trains(network.block_names)}
    for block in network.block_names:
        same = _is_same(before, network, block)
        assert same != (block in trained), block


def _is_same(a: Classifier, b: Classifier, block: str) -> bool:
    ours, theirs = a.blocks[block].state_dict(), b.blocks[block].state_dict()
    return all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_a_scan_gets_the_log_odds_of_its_marked_share_and_its_coarsest_features() -> None:
    network, data = build_network("unet_tiny", 2), planes()
    with torch.inference_mode():
        network.head.bias -= network.eval()(data.x).median()  # now half of all voxels are marked
    logits, embeddings = answers(network, data.x)
    with torch.inference_mode():
        p = network.eval()(data.x).sigmoid().flatten(1).double().numpy()
    marked = np.where(p >= 0.5, p, 0).sum(axis=1)
    assert 0 < marked.min() < marked.max() < 256
    assert np.allclose(logits, np.log((marked + 0.5) / (256 - marked + 0.5)), atol=1e-5)
    assert embeddings.shape == (8, 64)


def test_what_is_marked_does_not_depend_on_the_batch() -> None:
    network, data = build_network("unet_tiny", 2), planes()
    whole, halves = segment(network, data.x), segment(network, data.x, batch_size=3)
    assert np.array_equal(whole.marks, halves.marks)
    assert torch.allclose(whole.logits, halves.logits, atol=1e-5)


RECIPE = [
    StepSettings.model_validate({"harmonizer": "orient"}),
    StepSettings.model_validate({"harmonizer": "resample", "spacing_mm": [1.5, 1.0, 2.0], "axes": "patient"}),
    StepSettings.model_validate({"harmonizer": "clip_intensity", "low": -1.0, "high": 1.0}),
]


def test_a_mask_alone_goes_where_it_goes_with_its_image() -> None:
    rng = np.random.default_rng(0)
    grid = Geometry((0.9, 1.1, 3.0), (4.0, -7.0, 1.0), (0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, -1.0))
    image = Volume(rng.normal(size=(6, 9, 8)).astype(np.float32), grid)
    mask = Volume((image.voxels > 0.3).astype(np.uint8), grid)
    recipe: Recipe = parse_recipe(RECIPE)
    fitted = fit_recipe(recipe, [image], None)
    applied, alone = apply_recipe(fitted, image, mask), move_label(fitted, mask)
    assert applied.label is not None
    assert np.array_equal(alone.voxels, applied.label.voxels)
    assert alone.geometry == applied.label.geometry == applied.volume.geometry


def test_a_mask_is_cropped_as_its_volume_and_what_falls_off_is_counted() -> None:
    voxels = np.zeros((4, 6, 6), dtype=np.uint8)
    voxels[1:3, 0, 2:4] = 1
    voxels[1:3, 3, 2:4] = 1
    framed, n_outside = frame_mask(Volume(voxels), Framing(grid=(4, 4, 8), window=(0.0, 1.0)))
    assert framed.shape == (4, 4, 8)
    assert (int(framed.sum()), n_outside) == (4, 4)
    assert framed[1:3, 2, 3:5].all()


def test_a_plane_takes_the_nearest_marks() -> None:
    voxels = np.kron(np.array([[[0, 1], [1, 0]]]), np.ones((1, 3, 3), dtype=np.uint8)).astype(np.uint8)
    framed, n_outside = frame_mask(Volume(voxels), Framing(grid=(2, 4), window=None))
    assert framed.tolist() == [[0, 0, 1, 1], [1, 1, 0, 0]]
    assert n_outside == 0


def test_a_race_scores_masks_at_the_threshold_that_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    start, seen = build_network("unet_tiny", 2, seed=0), []
    about: dict[str, Any] = {
        "site": "a",
        "revision": 1,
        "patient_known": True,
        "modality": "CT",
        "observed_on": date(2026, 1, 1),
    }
    scans = tuple(Scan(series_key=f"s{n}", patient_key=f"p{n}", volume_uri="v", y=1, **about) for n in range(6))
    masks = Masks(np.ones((6, 1, 8, 8), dtype=np.uint8), np.zeros(6, dtype=np.int64))
    site = Loaded(scans, np.zeros((6, 1, 8, 8), dtype=np.float32), {}, masks)

    def overlap(_: object, data: Loaded, *, threshold: float = 0.5) -> object:
        seen.append(threshold)
        return np.full(len(data.scans), 0.5)

    monkeypatch.setattr(cross_validate, "overlap", overlap)
    monkeypatch.setattr(cross_validate, "train_copy", lambda *_, **__: SimpleNamespace(network=start, curve=(0.0,)))
    cross_validate.race(start, site, some(site, np.zeros(6, dtype=bool)), ["full"], TrainSettings(), threshold=0.3)
    assert len(seen) > 3
    assert set(seen) == {0.3}
