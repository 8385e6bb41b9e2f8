import numpy as np
import pytest

from platform_core.manifest.serving import Calibration
from platform_core.shift.bound import divergence, joint_risk, labelled_risk
from platform_core.shift.risk import log_loss
from platform_core.shift.scores import ScoredScans

PLAIN = Calibration(logit_offset=0.5, prevalence=0.5, threshold=0.5)


def scans(n: int, *, seed: int = 0, apart: float = 2.0, moved: float = 0.0, n_unlabelled: int = 0) -> ScoredScans:
    rng = np.random.default_rng(seed)
    y = (rng.random(n) < 0.5).astype(float)
    score = apart * (y - 0.5) + rng.normal(size=n)
    embedding = rng.normal(size=(n, 3)) + moved
    embedding[:, 0] += score
    y[:n_unlabelled] = np.nan
    keys = np.array([f"{seed}-{i}" for i in range(n)])
    return ScoredScans(keys, keys, np.ones(n, dtype=bool), y, score, embedding)


def test_risk_is_the_log_loss_of_the_calibrated_probability_of_labelled_scans() -> None:
    found = labelled_risk(scans(80, n_unlabelled=20), PLAIN)
    known = scans(80).where(np.arange(80) >= 20)
    assert found is not None
    assert found.value == pytest.approx(log_loss(known.y, 1 / (1 + np.exp(-(known.score + 0.5)))))
    assert found.low < found.value < found.high


def test_few_labels_have_no_risk() -> None:
    assert labelled_risk(scans(80, n_unlabelled=71), PLAIN) is None


def test_domains_that_a_line_cannot_tell_apart_are_near() -> None:
    found = divergence(scans(200).embedding, scans(200, seed=1).embedding)
    assert found is not None
    assert found.low == 0
    assert found.value < 0.4


def test_domains_far_apart_are_at_distance_two() -> None:
    found = divergence(scans(100).embedding, scans(100, seed=1, moved=10).embedding)
    assert found is not None
    assert found.value > 1.95


def test_a_larger_domain_does_not_make_a_larger_divergence() -> None:
    """Calling everything the larger domain is no error of 10 %, but of a half."""
    found = divergence(scans(900).embedding, scans(100, seed=1).embedding)
    assert found is not None
    assert found.value < 0.4


def test_constant_embeddings_are_at_distance_zero() -> None:
    found = divergence(np.ones((40, 3)), np.ones((40, 3)))
    assert found is not None
    assert found.value == 0


@pytest.mark.parametrize(("n", "width"), [(10, 3), (100, 0)], ids=["few patients", "no embeddings"])
def test_no_divergence_without_enough_embeddings(n: int, width: int) -> None:
    assert divergence(np.ones((100, width)), np.ones((n, width))) is None


def test_joint_risk_asks_for_three_hundred_labels() -> None:
    assert joint_risk(scans(200), scans(299, seed=1)) is None
    assert joint_risk(scans(200), scans(300, seed=1)) is not None


def test_joint_risk_is_high_where_no_head_serves_both_domains() -> None:
    agreeing = joint_risk(scans(300, apart=4), scans(300, seed=1, apart=4))
    opposed = joint_risk(scans(300, apart=4), scans(300, seed=1, apart=-4))
    assert agreeing is not None
    assert opposed is not None
    assert agreeing.high < 0.4
    assert opposed.low > 0.7
