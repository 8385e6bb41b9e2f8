"""What a training costs, counted in passes of one scan."""

import pytest

from platform_core.learn.cost import n_passes_to_embed, n_passes_to_train
from platform_core.learn.strategies import STRATEGIES
from platform_core.settings import TrainSettings

BLOCKS = ("stem", "block1", "block2", "block3", "block4", "head")
SETTINGS = TrainSettings(epochs=10)


def passes(strategy: str, *, is_embedded: bool = False) -> float:
    return n_passes_to_train(STRATEGIES[strategy], BLOCKS, 100, SETTINGS, is_embedded=is_embedded)


def test_a_pass_is_forward_and_backward_through_every_block() -> None:
    """Ten epochs of 100 scans."""
    assert passes("from_scratch") == pytest.approx(1000)


def test_a_probe_looks_once_and_not_at_all_where_embeddings_are_at_hand() -> None:
    assert passes("linear_probe") == pytest.approx(n_passes_to_embed(100)) == pytest.approx(100 / 3)
    assert passes("linear_probe", is_embedded=True) == 0


def test_a_gradient_goes_no_deeper_than_the_first_block_that_is_trained() -> None:
    """Half the epochs; forward through all, backward through three of six blocks."""
    assert passes("partial") == pytest.approx(500 * (1 / 3 + 2 / 3 * 3 / 6))
    assert passes("surgical_late") < passes("partial") < passes("full") == pytest.approx(passes("surgical_early"))


def test_only_the_first_phase_starts_from_known_embeddings() -> None:
    assert passes("lp_ft") - passes("lp_ft", is_embedded=True) == pytest.approx(100 / 3)
    assert passes("lp_ft", is_embedded=True) == pytest.approx(700)
