"""What a site's scores by a new recipe may say against it, where labels are too few."""

from dataclasses import replace

from platform_core.shift.risk import Estimate
from platform_core.trial.outlook import Outlook
from platform_core.trial.reharmonize import against_recipe

FITS = Outlook(p_fit=0.4, prevalence=Estimate(0.3, 0.2, 0.4), risk=Estimate(0.40, 0.37, 0.43))


def test_a_fit_that_is_lost_speaks_against_a_recipe() -> None:
    assert "fits the scores no more" in str(against_recipe(FITS, replace(FITS, p_fit=0.001)))


def test_a_fit_that_was_not_there_before_is_not_lost() -> None:
    misfit = replace(FITS, p_fit=0.001)
    assert against_recipe(misfit, misfit) is None
    assert against_recipe(misfit, FITS) is None


def test_an_expected_risk_that_rises_beyond_chance_speaks_against_it_and_one_that_may_rise_does_not() -> None:
    assert "rises by 0.10" in str(against_recipe(FITS, replace(FITS, risk=Estimate(0.50, 0.47, 0.53))))
    assert against_recipe(FITS, replace(FITS, risk=Estimate(0.43, 0.40, 0.46))) is None
    assert against_recipe(FITS, replace(FITS, risk=Estimate(0.30, 0.27, 0.33))) is None


def test_what_cannot_be_told_speaks_for_nothing() -> None:
    assert against_recipe(None, FITS) is None
    assert against_recipe(FITS, None) is None
    assert against_recipe(FITS, replace(FITS, risk=None)) is None
