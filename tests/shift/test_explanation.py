from dataclasses import dataclass

import numpy as np
import pytest

from platform_core.shift.explanation import Explanation, Fields, explain_divergence
from platform_core.shift.risk import Reals

NAMES = ("noise_hu", "band_4", "q50_hu", "texture")
KERNEL_NOISE = {"soft": 10.0, "sharp": 16.0}


@dataclass(frozen=True, kw_only=True)
class Hospital:
    n: int = 300
    sharp: float = 0.2
    """Share of patients by the sharp kernel, which is noisy and has power in the fourth band."""
    high_kvp: float = 0.5
    """Share at 140 kV, which lowers the median."""
    prevalence: float = 0.3
    model: str = "S1"
    noise: float = 0.0
    """Further noise that no field tells."""

    def rows(self, rng: np.random.Generator) -> tuple[Reals, Reals, Fields]:
        y = (rng.random(self.n) < self.prevalence).astype(float)
        is_sharp, is_high = rng.random(self.n) < self.sharp, rng.random(self.n) < self.high_kvp
        features = np.stack(
            [
                rng.normal(10 + 6 * is_sharp + self.noise, 2),
                rng.normal(2 * is_sharp, 1),
                rng.normal(40 - 8 * is_high, 4),
                rng.normal(1.5 * y, 1),
            ],
            axis=1,
        )
        fields: Fields = {
            "scanner_model": [self.model] * self.n,
            "kernel": ["sharp" if s else "soft" for s in is_sharp],
            "kvp": [140.0 if h else 120.0 for h in is_high],
            "exposure": rng.permutation(100_000)[: self.n].tolist(),
        }
        return features, y, fields


def explain(current: Hospital, reference: Hospital = Hospital(n=500), *, known: bool = True) -> Explanation:
    rng = np.random.default_rng(1)
    there, y, there_fields = reference.rows(rng)
    here, _, here_fields = current.rows(rng)
    return explain_divergence(
        NAMES,
        there,
        y,
        here,
        reference_fields=there_fields,
        current_fields=here_fields,
        prevalence=current.prevalence if known else None,
    )


def test_a_kernel_in_wider_use_is_named_with_its_shares_and_accounts_for_what_it_did() -> None:
    found = explain(Hospital(sharp=0.9))
    assert [cause.field for cause in found.fields] == ["kernel"]
    assert found.fields[0].value == "sharp"
    assert found.fields[0].share == pytest.approx(0.9, abs=0.05)
    assert found.fields[0].share_before == pytest.approx(0.2, abs=0.05)
    assert found.explained > 0.9
    assert found.features[0] in {"noise_hu", "band_4"}
    assert "q50_hu" not in found.features


def test_two_causes_are_both_named_and_neither_alone_is_enough() -> None:
    found = explain(Hospital(sharp=0.9, high_kvp=1.0))
    assert {cause.field for cause in found.fields} == {"kernel", "kvp"}
    assert found.explained > 0.9
    assert "q50_hu" in found.features
    assert {"noise_hu", "band_4"} & set(found.features)


def test_what_no_field_tells_is_said_to_be_unexplained() -> None:
    found = explain(Hospital(noise=4.0))
    assert found.fields == ()
    assert found.explained == 0
    assert found.features == ("noise_hu",)
    assert found.sentence.startswith("no header field accounts for the divergence of 0.")


def test_a_scanner_never_seen_explains_all_and_cannot_be_told_from_what_came_with_it() -> None:
    found = explain(Hospital(sharp=1.0, model="S2"), Hospital(n=500, sharp=0.0))
    assert [cause.field for cause in found.fields] == ["scanner_model"]
    assert found.fields[0].like == ("kernel",)
    assert found.fields[0].share_before == 0
    assert "scanner_model 'S2' (100% of patients, never in the reference)" in found.sentence
    assert "not to be told from kernel" in found.sentence


def test_a_field_that_names_single_patients_is_no_cause() -> None:
    """Every exposure is new: it would explain everything."""
    found = explain(Hospital(noise=4.0))
    assert "exposure" not in found.sentence


def test_more_sick_patients_are_no_divergence_once_the_reference_is_weighted_to_them() -> None:
    assert explain(Hospital(prevalence=0.8), known=False).features == ("texture",)
    weighted = explain(Hospital(prevalence=0.8))
    assert weighted.sentence == "no feature differs beyond chance"
    assert weighted.divergence == 0


def test_an_unchanged_site_has_nothing_to_explain() -> None:
    assert explain(Hospital()).fields == ()


def test_a_part_of_the_divergence_is_told_as_a_part() -> None:
    found = explain(Hospital(sharp=0.6, noise=2.0))
    assert [cause.field for cause in found.fields] == ["kernel"]
    assert 0.2 < found.explained < 0.9
    assert f"{found.explained:.0%} of the divergence" in found.sentence


def test_missing_values_are_a_value_and_missing_features_are_left_out() -> None:
    rng = np.random.default_rng(2)
    there, y, fields = Hospital(n=400).rows(rng)
    here, _, here_fields = Hospital(sharp=0.9).rows(rng)
    here[:, 1] = np.nan
    here[:50, 0] = np.nan
    unknown = {**here_fields, "kernel": [None] * 300}
    found = explain_divergence(NAMES, there, y, here, reference_fields=fields, current_fields=unknown, prevalence=None)
    assert found.fields[0].value == "missing"
    assert "band_4" not in found.features


def test_the_same_call_gives_the_same_answer() -> None:
    assert explain(Hospital(sharp=0.9)) == explain(Hospital(sharp=0.9))
