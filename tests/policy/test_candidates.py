"""Which strategies a race is run between."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from platform_core.errors import UnknownName
from platform_core.learn.strategies import STRATEGIES
from platform_core.policy.candidates import CHEAPEST_FIRST, MANY, MOST, PLENTY, SOME, candidates
from platform_core.policy.situation import KINDS

KIND = st.sampled_from(KINDS)
ALLOWED = st.lists(st.sampled_from(list(STRATEGIES)), unique=True, min_size=1)
NOISE = st.none() | st.floats(0, 1)


@given(KIND, st.integers(0, 10_000), ALLOWED, NOISE)
def test_a_race_has_one_to_four_allowed_candidates_in_the_target_s_order(
    kind: str, n: int, allowed: list[str], noise: float | None
) -> None:
    found = candidates(kind, n, allowed, noise)
    assert 1 <= len(found) <= MOST
    assert list(found) == [name for name in allowed if name in found]


def test_every_strategy_that_may_be_named_exists() -> None:
    assert set(CHEAPEST_FIRST) <= set(STRATEGIES)
    everything = list(STRATEGIES)
    named = {name for kind in KINDS for n in (0, SOME, MANY, PLENTY) for name in candidates(kind, n, everything)}
    assert named <= set(STRATEGIES)


@pytest.mark.parametrize(
    ("kind", "fitting"), [("covariate_acquisition", "surgical_early"), ("concept", "surgical_late")]
)
def test_the_kind_of_shift_says_which_blocks_are_tried(kind: str, fitting: str) -> None:
    other = {"surgical_early", "surgical_late"} - {fitting}
    for n in (0, SOME):
        assert fitting in candidates(kind, n, CHEAPEST_FIRST)
        assert not other & set(candidates(kind, n, CHEAPEST_FIRST))


def test_few_labels_do_not_pay_for_dear_strategies() -> None:
    assert not {"full", "lp_ft"} & set(candidates("concept", SOME - 1, CHEAPEST_FIRST))
    assert {"full", "lp_ft"} <= set(candidates("concept", MANY, CHEAPEST_FIRST))


def test_training_from_nothing_is_tried_on_plenty_of_labels_where_the_target_allows_it() -> None:
    allowed = (*CHEAPEST_FIRST, "from_scratch")
    assert "from_scratch" in candidates("covariate_acquisition", PLENTY, allowed)
    assert "from_scratch" not in candidates("covariate_acquisition", PLENTY, CHEAPEST_FIRST)
    assert "from_scratch" not in candidates("covariate_acquisition", PLENTY - 1, allowed)


def test_disputed_labels_train_the_last_layers_only() -> None:
    assert candidates("covariate_acquisition", MANY, CHEAPEST_FIRST, 0.1) == ("linear_probe", "surgical_late")


def test_what_the_target_allows_is_tried_even_if_nothing_worthier_is_allowed() -> None:
    assert candidates("concept", 10, ("full",)) == ("full",)


def test_a_target_that_allows_nothing_is_refused() -> None:
    with pytest.raises(UnknownName, match="linear_probe"):
        candidates("concept", 10, ())
