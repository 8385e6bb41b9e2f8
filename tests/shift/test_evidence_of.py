"""From samples in memory to a verdict, on hospitals with a planted truth."""

from dataclasses import fields, is_dataclass, replace

import numpy as np
import pytest

from platform_core.settings import ShiftSettings
from platform_core.shift.diagnosis import Verdict, bound_under, diagnose
from platform_core.shift.estimates import labelled_scores
from platform_core.shift.evidence import Evidence, evidence_of
from platform_core.shift.labels.concept import one_look_test
from platform_core.shift.material import Material
from platform_core.shift.samples import Patients, header_changes
from platform_core.shift.sentences import MOST_LETTERS
from tests.shift.toy import CONTENT, Site, material, sample, shown

KS = ("ks",)
SETTINGS = ShiftSettings()
WITH_SICK_LOOK = 1.2


def world(site: Site, seed: int = 1, **how: float) -> Material:
    made = material(site, np.random.default_rng(seed), n_reference=1000, **how)
    return replace(made, reference=None)


def verdict(made: Material) -> Verdict:
    return diagnose(evidence_of(made, KS), SETTINGS)


def unlabelled(side: Patients) -> Patients:
    return replace(side, y=np.full(len(side), np.nan))


@pytest.mark.parametrize(
    ("site", "kind"),
    [
        (Site(), "none"),
        (Site(n_labels=0), "none"),
        (Site(prevalence=0.65), "label"),
        (Site(noise=0.8), "covariate_acquisition"),
        (Site(noise=0.8, prevalence=0.65), "covariate_acquisition"),
        (Site(older=1.0), "covariate_case_mix"),
        (Site(dropped=0.6), "concept"),
        (Site(n=60), "undetermined"),
    ],
    ids=["none", "no labels", "label", "scanner", "scanner and label", "patients", "labels mean less", "few"],
)
def test_what_was_planted_is_found(site: Site, kind: str) -> None:
    assert verdict(world(site)).kind == kind


def test_equal_material_makes_equal_evidence() -> None:
    first, again = (evidence_of(world(Site(prevalence=0.65)), KS) for _ in range(2))
    assert replace(first, labels=None) == replace(again, labels=None)


def test_acquisition_that_follows_prevalence_is_label_shift() -> None:
    """The last acquisition feature is higher in the sick, and more of them come."""
    made = world(Site(prevalence=0.75), sick_look=WITH_SICK_LOOK)
    found = evidence_of(made, KS)
    assert any(s.feature == "a5_hu" and s.p < 1e-4 and s.distance.value > 0.15 for s in found.since_accepted)
    left = found.reweighted["acquisition"]
    assert left.p > 0.05
    told = diagnose(found, SETTINGS)
    assert told.kind == "label"
    assert "acquisition is as before at that prevalence" in told.explained_by


def test_without_labels_of_the_accepted_state_the_reference_says_how_far_prevalence_moves_a_feature() -> None:
    made = material(Site(prevalence=0.75), np.random.default_rng(1), n_reference=1000, sick_look=WITH_SICK_LOOK)
    made = replace(made, accepted=unlabelled(made.accepted))
    found = evidence_of(made, KS)
    assert found.reweighted == {}
    moved = next(s for s in found.since_accepted if s.feature == "a5_hu")
    assert found.by_prevalence["a5_hu"] == pytest.approx(moved.distance.value, abs=0.1)
    assert diagnose(found, SETTINGS).kind == "label"
    assert verdict(replace(made, reference=None)).kind == "covariate_acquisition"


def test_a_scanner_that_moved_with_prevalence_stays_a_scanner() -> None:
    found = verdict(world(Site(noise=0.8, prevalence=0.65), sick_look=WITH_SICK_LOOK))
    assert found.kind == "covariate_acquisition"


@pytest.mark.parametrize("seed", range(4))
def test_a_scanner_is_not_excused_because_few_labels_cannot_show_it(seed: int) -> None:
    made = material(Site(prevalence=0.65), np.random.default_rng(seed), n_reference=500)
    values = made.current.values + np.where(np.arange(made.current.values.shape[1]) == 0, 0.6, 0.0)
    few = replace(made.accepted, y=np.where(np.arange(500) < 50, made.accepted.y, np.nan))
    assert verdict(replace(with_values(made, values), accepted=few)).kind == "covariate_acquisition"


@pytest.mark.parametrize(("prevalence", "kind"), [(0.3, "covariate_acquisition"), (0.65, "mixed")])
def test_seen_through_the_sites_scanner_prevalence_has_moved_or_not(prevalence: float, kind: str) -> None:
    site, rng = Site(n=1000, noise=0.8, prevalence=prevalence), np.random.default_rng(2)
    made = replace(world(site), transported=shown(site, rng))
    evidence = evidence_of(made, KS)
    found = diagnose(evidence, SETTINGS)
    assert evidence.through_scanner is not None
    assert evidence.through_scanner.value == pytest.approx(prevalence, abs=0.08)
    assert found.kind == kind
    assert "as seen through the site's scanner" in found.explained_by
    assert ("unchanged" in found.explained_by) == (kind == "covariate_acquisition")
    assert bound_under(found, evidence).expected_risk is not None


def accepted_on_another_scanner(site: Site, *, accepted: Site) -> Material:
    """A site whose first feature is not the reference's, as it was accepted and as it is now."""
    made = world(site)
    before, scores = sample(replace(accepted, n=1000, n_labels=1000), np.random.default_rng(7))
    moved = np.where(np.arange(made.current.values.shape[1]) == 0, 0.8, 0.0)
    there, here = (
        replace(side, values=side.values + moved * (of.noise == 0))
        for side, of in ((before, accepted), (made.current, site))
    )
    return replace(
        made, accepted=there, accepted_scores=scores, current=here, harmonized=here, reference_harmonized=made.accepted
    )


@pytest.mark.parametrize("noise", [0.4, 0.8])
@pytest.mark.parametrize("prevalence", [0.3, 0.65])
def test_a_scanner_that_always_moved_the_scores_is_no_prevalence_and_no_patients(
    noise: float, prevalence: float
) -> None:
    site = Site(n=1000, noise=noise, prevalence=prevalence, n_labels=0)
    found = verdict(accepted_on_another_scanner(site, accepted=Site(noise=noise)))
    assert found.kind == "undetermined"
    assert "label status not determined" in found.explained_by


def test_a_recognisable_scanner_whose_accepted_scores_were_the_references_tells_of_prevalence() -> None:
    assert verdict(accepted_on_another_scanner(Site(prevalence=0.65), accepted=Site())).kind == "label"


@pytest.mark.parametrize("prevalence", [0.3, 0.65])
def test_through_a_scanner_that_always_moved_the_scores_prevalence_is_told_and_not_believed(prevalence: float) -> None:
    site = Site(n=1000, noise=0.8, prevalence=prevalence)
    made = accepted_on_another_scanner(site, accepted=Site(noise=0.8))
    found = verdict(replace(made, transported=shown(site, np.random.default_rng(2))))
    assert found.kind == "undetermined"
    assert "as seen through the site's scanner" in found.explained_by


@pytest.mark.parametrize("fault", ["residual", "another scanner"])
def test_a_scanner_that_was_not_imitated_leaves_the_label_status_open(fault: str) -> None:
    site, rng = Site(n=1000, noise=0.8, prevalence=0.65), np.random.default_rng(2)
    seen = shown(site, rng, worst=0.5) if fault == "residual" else shown(Site(noise=3.0), rng)
    found = verdict(replace(world(site), transported=seen))
    assert found.kind == "covariate_acquisition"
    assert "label status not determined: the site's scanner is not imitated well enough" in found.explained_by
    assert "113 labels would show a prevalence of 0.45" in found.explained_by


def test_labels_say_nothing_of_meaning_while_the_scanner_differs() -> None:
    found = verdict(world(Site(noise=0.8, dropped=0.6)))
    assert found.kind == "covariate_acquisition"
    assert "a change of meaning is not excluded: scans or patients differ" in found.explained_by
    assert "of positives called negative in 80 % of cases" in found.explained_by


def test_after_harmonization_labels_speak_again() -> None:
    made = world(Site(dropped=0.6))
    noisy = made.current.values + np.where(np.arange(made.current.values.shape[1]) == 0, 0.8, 0.0)
    later = replace(made, current=replace(made.current, values=noisy))
    assert verdict(later).kind == "covariate_acquisition"
    harmonized = replace(later, harmonized=made.current, reference_harmonized=made.accepted)
    found = verdict(harmonized)
    assert found.kind == "concept"
    assert "acquisition differs and is harmonized: a0_hu rose" in found.explained_by


def test_other_patients_whose_scores_look_like_prevalence_are_not_label_shift() -> None:
    made = world(Site(older=0.5, n_labels=0), seed=3)
    evidence = evidence_of(made, KS)
    assert evidence.prevalence is not None
    assert evidence.prevalence.by_scores.p_changed < 0.01
    assert diagnose(evidence, SETTINGS).kind == "covariate_case_mix"


def test_another_prevalence_and_another_meaning_together_are_not_called_other_patients() -> None:
    made = world(Site(prevalence=0.65, dropped=0.6))
    still = np.where(np.arange(made.current.values.shape[1]) == made.current.features.index(CONTENT[0]), np.nan, 0.0)
    found = verdict(with_values(made, made.current.values + still))
    assert found.kind == "undetermined"
    assert "which labels deny" in found.explained_by


def test_labels_tell_the_prevalence_by_the_chances_they_were_drawn_with() -> None:
    made = world(Site(prevalence=0.3, n_labels=500))
    is_sick = made.current.y == 1
    chance = np.where(is_sick, 0.9, 0.3)
    is_drawn = np.random.default_rng(4).random(500) < chance
    current = replace(made.current, y=np.where(is_drawn, made.current.y, np.nan))
    even, weighted = (
        evidence_of(replace(made, current=replace(current, asked=asked)), KS).labelled_prevalence
        for asked in (None, chance)
    )
    assert even is not None
    assert weighted is not None
    assert even.low > 0.35
    assert weighted.low < 0.3 < weighted.high


def test_labels_asked_for_with_uneven_chances_are_held_against_scores_as_if_drawn_evenly() -> None:
    """The sick are asked for three times as often as others who score alike: taken as they are, labels lie."""
    made = world(Site(n=4000, n_labels=4000))
    assert made.scores is not None
    chance = np.where(made.scores.y == 1, 0.9, 0.3)
    rows = np.random.default_rng(4).random(4000) < chance
    drawn, stated = made.scores.where(rows), replace(made.scores, chance=chance).where(rows)
    as_drawn, even = (labelled_scores(replace(made, held_out=scans), None) for scans in (drawn, stated))
    assert as_drawn is not None
    assert even is not None
    assert as_drawn.y.mean() > 0.5
    assert even.y.mean() == pytest.approx(0.3, abs=0.03)
    assert one_look_test(as_drawn.reliability, as_drawn.scores, as_drawn.y, is_comparable=True).verdict == "changed"
    assert one_look_test(even.reliability, even.scores, even.y, is_comparable=True).verdict == "not_excluded"


def test_one_chance_for_all_drops_no_label() -> None:
    made = world(Site(n_labels=100))
    assert made.scores is not None
    for chance in (np.full(500, 0.2), np.full(500, np.nan)):
        told = labelled_scores(replace(made, held_out=replace(made.scores, chance=chance)), None)
        assert told is not None
        assert len(told.y) == 100


def test_a_class_that_the_reference_never_saw_leaves_prevalence_untold() -> None:
    made = world(Site(noise=0.8))
    assert made.reference_scores is not None
    one_class = replace_y(made, np.where(made.reference_scores.y == 1, np.nan, made.reference_scores.y))
    found = verdict(one_class)
    assert found.kind == "covariate_acquisition"
    assert "prevalence cannot be told: labelled reference patients of each class" in found.explained_by


def replace_y(made: Material, y: np.ndarray) -> Material:
    assert made.reference_scores is not None
    return replace(made, reference_scores=replace(made.reference_scores, y=y))


def thinned(made: Material, n: int) -> Material:
    """The period with only its first patients."""
    first = np.arange(len(made.current)) < n
    assert made.scores is not None
    current = Patients(features=made.current.features, values=made.current.values[:n], y=made.current.y[:n])
    scores = made.scores.where(first)
    return replace(made, current=current, scores=scores, held_out=scores)


def with_values(made: Material, values: np.ndarray) -> Material:
    return replace(made, current=replace(made.current, values=values))


def broken(made: Material) -> dict[str, Material]:
    """Everything that may arrive of an unchanged site."""
    values = made.current.values
    lost = values.copy()
    lost[:, 2] = np.nan
    few = values.copy()
    few[10:, 2] = np.nan
    same = values.copy()
    same[:, 2] = 0.0
    there = made.accepted.values.copy()
    there[:, 2] = 0.0
    constant = replace(with_values(made, same), accepted=replace(made.accepted, values=there))
    nan_scores = None if made.scores is None else replace(made.scores, y=np.full(len(made.scores), np.nan))
    return {
        "empty": thinned(made, 0),
        "one scan": thinned(made, 1),
        "two scans": thinned(made, 2),
        "twenty scans": thinned(made, 20),
        "a constant feature": constant,
        "a feature missing": with_values(made, lost),
        "a feature of few": with_values(made, few),
        "no features": replace(made, current=made.current.narrowed(())),
        "no features at all": replace(made, current=made.current.narrowed(()), accepted=made.accepted.narrowed(())),
        "only content": replace(made, current=made.current.narrowed(CONTENT)),
        "no labels here": replace(made, current=unlabelled(made.current), held_out=nan_scores, scores=nan_scores),
        "no labels anywhere": replace_y(
            replace(made, accepted=unlabelled(made.accepted)), np.full(len(made.accepted), np.nan)
        ),
        "no model": replace(
            made, scores=None, held_out=None, reference_scores=None, calibration=None, reference_calibration=None
        ),
        "one class of labels": replace(made, current=replace(made.current, y=np.zeros(len(made.current)))),
    }


@pytest.mark.parametrize("name", sorted(broken(world(Site(n=500)))))
@pytest.mark.parametrize("is_accepted", [False, True], ids=["later", "first"])
def test_whatever_is_missing_there_is_no_alarm_and_no_nan(name: str, is_accepted: bool) -> None:
    made = broken(world(Site()))[name]
    if is_accepted:
        made = replace(made, is_accepted=True, harmonized=made.current, reference_harmonized=made.accepted)
    evidence = evidence_of(made)
    found = diagnose(evidence, SETTINGS)
    is_unseen = not is_accepted and name in ("no features", "no features at all", "only content")
    assert found.kind == ("undetermined" if len(made.current) < 100 or is_unseen else "none")
    assert not list(not_finite(evidence))
    assert not list(not_finite(found))
    assert "nan" not in found.explained_by
    assert len(found.explained_by) <= MOST_LETTERS


@pytest.mark.parametrize("is_accepted", [False, True], ids=["later", "first"])
@pytest.mark.parametrize("names", [(), CONTENT], ids=["nothing", "content"])
@pytest.mark.parametrize("site", [Site(prevalence=0.65), Site(older=1.0), Site(n=500, noise=2.0)])
def test_where_no_scanner_was_compared_nothing_is_said_of_prevalence_or_patients(
    site: Site, names: tuple[str, ...], is_accepted: bool
) -> None:
    made = world(site)
    current = made.current.narrowed(names)
    made = replace(made, current=current, harmonized=current, reference_harmonized=made.accepted)
    found = verdict(replace(made, is_accepted=is_accepted))
    assert found.kind == "undetermined"
    assert found.explained_by.startswith("no acquisition feature could be compared")


def not_finite(thing: object, name: str = "") -> list[str]:
    """Names of numbers that are none, wherever they lie."""
    if isinstance(thing, float):
        return [] if np.isfinite(thing) else [name]
    if isinstance(thing, dict):
        return [bad for key, each in thing.items() for bad in not_finite(each, f"{name}.{key}")]
    if isinstance(thing, tuple):
        return [bad for each in thing for bad in not_finite(each, name)]
    if is_dataclass(thing) and not isinstance(thing, type):
        return [bad for f in fields(thing) for bad in not_finite(getattr(thing, f.name), f"{name}.{f.name}")]
    return []


def test_evidence_of_a_new_site_is_held_against_the_reference() -> None:
    made = world(Site(noise=0.8))
    first = replace(made, is_accepted=True, harmonized=made.current, reference_harmonized=made.accepted)
    evidence = evidence_of(first, KS)
    assert isinstance(evidence, Evidence)
    assert evidence.since_accepted == ()
    assert [s.feature for s in evidence.from_reference if s.p < 1e-6] == ["a0_hu"]
    assert evidence.explanation is not None
    assert evidence.explanation.features == ("a0_hu",)


def on_two_scanners(side: Patients, share: float, rng: np.random.Generator) -> tuple[Patients, np.ndarray]:
    """A share of the patients is scanned on S2, which shows the first feature of content brighter."""
    is_second = rng.random(len(side)) < share
    brighter = np.outer(is_second, np.arange(side.values.shape[1]) == len(side.features) - len(CONTENT))
    fields = {"scanner_model": tuple(np.where(is_second, "S2", "S1").tolist())}
    return replace(side, values=side.values + 2.0 * brighter, fields=fields), is_second


@pytest.mark.parametrize(("before", "kind"), [(0.3, "covariate_acquisition"), (0.0, "covariate_case_mix")])
def test_a_repeated_scanner_tells_another_mix_of_scanners_from_other_patients(before: float, kind: str) -> None:
    """On a scanner that was never there before, nobody can tell."""
    made, rng = world(Site()), np.random.default_rng(5)
    accepted, _ = on_two_scanners(made.accepted, before, rng)
    current, is_second = on_two_scanners(made.current, 0.9, rng)
    assert made.scores is not None
    scores = replace(made.scores, score=np.where(is_second, 0.3 * made.scores.score + 1.5, made.scores.score))
    found = verdict(replace(made, accepted=accepted, current=current, scores=scores, held_out=scores))
    assert found.kind == kind
    assert "scanner_model 'S2'" in found.explained_by
    assert ("acquisition is as before" in found.explained_by) == (kind == "covariate_case_mix")


def test_a_header_field_that_nobody_had_before_is_not_news() -> None:
    known, told = ("B30f", None), ("B45s", "B30f")
    assert header_changes({"kernel": (None, None)}, {"kernel": told}) == []
    assert [change.share for change in header_changes({"kernel": known}, {"kernel": told})] == [0.5]


@pytest.mark.parametrize(("scanner", "is_said"), [("S1", True), ("S2", False), (None, False)])
def test_that_a_scanner_was_seen_before_is_said_only_of_scanners_that_were(scanner: str | None, is_said: bool) -> None:
    made = world(Site(noise=0.8))
    current = replace(made.current, fields={"scanner_model": (scanner,) * len(made.current)})
    assert ("on scanners seen before" in verdict(replace(made, current=current)).explained_by) == is_said


def test_too_few_of_a_class_to_make_up_the_estimated_prevalence_leave_it_unweighted() -> None:
    made = world(Site(prevalence=0.95), sick_look=WITH_SICK_LOOK)
    rare = np.where(np.cumsum(made.accepted.y == 1) <= 11, made.accepted.y, np.nan)
    found = evidence_of(replace(made, accepted=replace(made.accepted, y=rare)), KS)
    assert found.prevalence is not None
    assert found.prevalence.by_scores.value > 0.85
    assert "acquisition" not in found.reweighted
