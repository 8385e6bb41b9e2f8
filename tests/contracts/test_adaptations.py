"""What every adaptation without labels promises: a new file is tested here before its author writes a test."""

import inspect
from functools import cache

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from torch import nn

from platform_core.errors import EmptySample, NotAdaptable
from platform_core.learn.adaptations import ADAPTATIONS
from platform_core.learn.contract import Adaptation
from platform_core.learn.networks import Classifier, build_network, weights_sha256
from tests.learn.planted_shift import Arrays, Scanner, learned, logits, loss, scans

BRIGHTER = Scanner(gain=1.5)


@pytest.fixture(params=ADAPTATIONS.values(), ids=list(ADAPTATIONS))
def adaptation(request: pytest.FixtureRequest) -> Adaptation:
    found: Adaptation = request.param
    return found


@pytest.fixture(scope="module")
def reference() -> Arrays:
    return scans(150, 1)[0]


@cache
def adapted_to_brighter(name: str) -> Classifier:
    """Not to be changed."""
    return ADAPTATIONS[name].adapt(learned(), scans(150, 2, BRIGHTER)[0], scans(150, 1)[0], seed=5)


def test_only_what_it_names_comes_out_changed(adaptation: Adaptation) -> None:
    network = learned()
    adapted = adapted_to_brighter(adaptation.name)
    before, after = network.state_dict(), adapted.state_dict()
    assert adapted.block_names == network.block_names
    assert {name: t.shape for name, t in after.items()} == {name: t.shape for name, t in before.items()}
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert changed <= adaptation.moves(network)


def test_the_network_that_is_given_stays_as_it_is(adaptation: Adaptation) -> None:
    was = weights_sha256(learned())
    adapted = adapted_to_brighter(adaptation.name)
    assert weights_sha256(learned()) == was
    mine = {tensor.data_ptr() for tensor in learned().state_dict().values() if tensor.ndim}
    assert mine.isdisjoint(tensor.data_ptr() for tensor in adapted.state_dict().values() if tensor.ndim)


def test_what_comes_out_can_be_trained_and_is_in_evaluation_mode(adaptation: Adaptation) -> None:
    adapted = adapted_to_brighter(adaptation.name)
    assert not adapted.training
    assert all(parameter.requires_grad for parameter in adapted.parameters())
    assert all(torch.isfinite(tensor).all() for tensor in adapted.state_dict().values())


def test_the_same_scans_and_seed_give_the_same_weights(adaptation: Adaptation, reference: Arrays) -> None:
    """Whatever else drew random numbers in this process, and they are left as they were."""
    torch.manual_seed(3)
    again = adaptation.adapt(learned(), scans(150, 2, BRIGHTER)[0], reference, seed=5)
    drawn = torch.rand(2)
    assert weights_sha256(again) == weights_sha256(adapted_to_brighter(adaptation.name))
    torch.manual_seed(3)
    assert torch.equal(torch.rand(2), drawn)


def test_it_takes_no_labels(adaptation: Adaptation) -> None:
    taken = list(inspect.signature(adaptation.adapt).parameters)
    assert taken == ["network", "site_arrays", "reference_arrays", "seed"]


def test_scans_made_like_the_references_hardly_move_a_score(adaptation: Adaptation, reference: Arrays) -> None:
    """A bound on ranks and on loss, on patients whose scans moved nothing."""
    adapted = adaptation.adapt(learned(), scans(200, 3)[0], reference, seed=0)
    x, y = scans(300, 4)
    assert spearmanr(logits(adapted, x), logits(learned(), x)).statistic > 0.97
    assert loss(adapted, x, y) < loss(learned(), x, y) + 0.05


@pytest.mark.parametrize("scanner", [BRIGHTER, Scanner(offset=0.4)], ids=["gain", "offset"])
def test_another_gain_or_offset_is_cured_for_the_most_part(
    adaptation: Adaptation, reference: Arrays, scanner: Scanner
) -> None:
    adapted = adaptation.adapt(learned(), scans(200, 5, scanner)[0], reference, seed=0)
    (x, y), usual = scans(300, 6, scanner), loss(learned(), *scans(300, 7))
    excess, left = loss(learned(), x, y) - usual, loss(adapted, x, y) - usual
    assert excess > 0.1
    assert left < excess / 2


def test_too_few_scans_are_refused_with_the_number_that_it_takes(adaptation: Adaptation, reference: Arrays) -> None:
    with pytest.raises(EmptySample, match="unlabelled scans of the site") as refused:
        adaptation.adapt(learned(), scans(8, 8)[0], reference, seed=0)
    assert refused.value.n_found == 8
    assert refused.value.n_needed > 8


def test_it_takes_three_dimensions_too(adaptation: Adaptation) -> None:
    rng = np.random.default_rng(0)
    x = (rng.normal(size=(100, 1, 8, 8, 8)) * rng.uniform(0.5, 4, (100, 1, 1, 1, 1))).astype(np.float32)
    network = _sure(build_network("resnet_tiny", 3, seed=1))
    adapted = adaptation.adapt(network, x + 0.5, x, seed=0)
    assert adapted.block_names == network.block_names


def test_a_network_without_what_it_moves_is_refused_by_name(adaptation: Adaptation, reference: Arrays) -> None:
    bare = Classifier({"stem": nn.Flatten(), "head": nn.Sequential(nn.Linear(256, 1))}).eval()
    with pytest.raises(NotAdaptable, match=f"{adaptation.name} is refused"):
        adaptation.adapt(bare, reference, reference, seed=0)


def test_places_are_all_different() -> None:
    places = [each.place for each in ADAPTATIONS.values()]
    assert len(set(places)) == len(places)


def _sure(network: Classifier) -> Classifier:
    """The same network with a head whose calls are sure, as a trained one's are."""
    with torch.no_grad():
        for tensor in network.head.parameters():
            tensor.mul_(200)
    return network.eval()
