"""What scores say against a new recipe, where no label says more."""

from platform_core.shift.risk import Estimate
from platform_core.trial.outlook import Outlook
from platform_core.trial.reharmonize import against_recipe


def look(p_fit: float, risk: float) -> Outlook:
    return Outlook(p_fit=p_fit, prevalence=Estimate(0.3, 0.25, 0.35), risk=Estimate(risk, risk - 0.03, risk + 0.03))


def test_a_lost_fit_and_a_rise_of_the_expected_risk_speak_against_it() -> None:
    assert "fits the scores no more" in str(against_recipe(look(0.5, 0.3), look(0.001, 0.3)))
    assert "rises by 0.10" in str(against_recipe(look(0.5, 0.3), look(0.5, 0.4)))
    assert against_recipe(look(0.5, 0.3), look(0.5, 0.31)) is None
    assert against_recipe(None, look(0.5, 0.4)) is None


def test_the_risk_of_scores_that_fit_nothing_is_no_yardstick() -> None:
    """Under another scanner they may seem to hold no positive at all, which costs little: the cure looks dearer."""
    assert against_recipe(look(1e-9, 0.29), look(0.7, 0.40)) is None
