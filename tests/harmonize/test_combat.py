"""Location and scale of sites, taken out of tables of features."""

import json
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import digamma, polygamma

from platform_core.errors import EmptySample, GeometryMismatch, UnknownName
from platform_core.harmonize.combat import Combat, fit_combat
from platform_core.harmonize.unseen_site import _log_variance, estimate_unseen

Floats = npt.NDArray[np.float64]
N_FEATURES = 12


@dataclass(frozen=True)
class Planted:
    values: Floats
    truth: Floats
    """The same rows without any site."""
    sites: list[str]
    age: Floats


def plant(
    n_per_site: dict[str, int],
    seed: int = 0,
    *,
    shift: float = 1.0,
    spread: float = 0.3,
    far: str = "",
    by: float = 0.0,
) -> Planted:
    """Rows with an effect of age and an additive and a multiplicative effect of each site; `far` lies `by` further."""
    of_all = np.random.default_rng(seed)
    loads, size = of_all.normal(0, 0.04, N_FEATURES), np.exp(of_all.normal(0, 1, N_FEATURES))
    values, truth, sites, ages = [], [], [], []
    for site, n in n_per_site.items():
        rng = np.random.default_rng([seed, *site.encode()])
        location = rng.normal(0, shift, N_FEATURES) + by * (site == far)
        scale = np.exp(rng.normal(0, spread, N_FEATURES))
        age, noise = rng.uniform(20, 80, n), rng.normal(0, 1, (n, N_FEATURES))
        values.append(size * (10 + loads * age[:, None] + location + scale * noise))
        truth.append(size * (10 + loads * age[:, None] + noise))
        sites += [site] * n
        ages.append(age)
    return Planted(np.concatenate(values), np.concatenate(truth), sites, np.concatenate(ages)[:, None])


def known(n_sites: int = 8, n: int = 60) -> dict[str, int]:
    return {f"site_{k}": n for k in range(n_sites)}


def select(planted: Planted, chosen: npt.NDArray[np.bool_]) -> Planted:
    sites = [site for site, take in zip(planted.sites, chosen, strict=True) if take]
    return Planted(planted.values[chosen], planted.truth[chosen], sites, planted.age[chosen])


def split(planted: Planted, left_out: str) -> tuple[Planted, Planted]:
    is_left_out = np.asarray(planted.sites) == left_out
    return select(planted, ~is_left_out), select(planted, is_left_out)


def without_age(values: Floats, age: Floats) -> Floats:
    design = np.hstack([np.ones_like(age), age])
    residual: Floats = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    return residual


def loops(values: Floats, sites: list[str], covariates: Floats, reference: str | None) -> Floats:
    """Johnson, Li & Rabinovic 2007 spelled out, one number at a time."""
    names, n_rows, n_features = sorted(set(sites)), len(values), values.shape[1]
    design = np.array([[float(s == name) for name in names] + list(c) for s, c in zip(sites, covariates, strict=True)])
    beta = np.linalg.solve(design.T @ design, design.T @ values)
    rows = {name: [i for i in range(n_rows) if sites[i] == name] for name in names}
    z, expected, sd = np.zeros_like(values), np.zeros_like(values), np.zeros(n_features)
    for g in range(n_features):
        if reference is None:
            grand = sum(len(rows[name]) * beta[k, g] for k, name in enumerate(names)) / n_rows
            pool = list(range(n_rows))
        else:
            grand, pool = beta[names.index(reference), g], rows[reference]
        sd[g] = math.sqrt(sum((values[i, g] - design[i] @ beta[:, g]) ** 2 for i in pool) / len(pool))
        for i in range(n_rows):
            expected[i, g] = grand + covariates[i] @ beta[len(names) :, g]
            z[i, g] = (values[i, g] - expected[i, g]) / sd[g]
    out = values.copy()
    for name in set(names) - {reference}:
        own = z[rows[name]]
        gamma_hat, delta_hat = own.mean(axis=0), own.var(axis=0, ddof=1)
        gamma_bar, t2 = gamma_hat.mean(), gamma_hat.var(ddof=1)
        m, s2 = delta_hat.mean(), delta_hat.var(ddof=1)
        a, b, n = (2 * s2 + m * m) / s2, (m * s2 + m**3) / s2, len(own)
        for g in range(n_features):
            gamma, delta = gamma_hat[g], delta_hat[g]
            for _ in range(500):
                gamma = (t2 * n * gamma_hat[g] + delta * gamma_bar) / (t2 * n + delta)
                delta = (sum((x - gamma) ** 2 for x in own[:, g]) / 2 + b) / (n / 2 + a - 1)
            for i in rows[name]:
                out[i, g] = (z[i, g] - gamma) / math.sqrt(delta) * sd[g] + expected[i, g]
    return out


@pytest.mark.parametrize("reference", [None, "site_1"])
@pytest.mark.parametrize("with_age", [True, False])
def test_it_is_the_published_combat(reference: str | None, with_age: bool) -> None:
    data = plant({"site_0": 9, "site_1": 14, "site_2": 6})
    age = data.age if with_age else np.empty((len(data.sites), 0))
    combat = fit_combat(data.values, data.sites, age, reference)
    out = combat.apply(data.values, data.sites, age)
    assert out.values == pytest.approx(loops(data.values, data.sites, age, reference), rel=1e-6)
    assert out.extrapolation == ()


def test_site_means_and_variances_become_equal() -> None:
    data = plant(known(n=300))
    out = without_age(
        fit_combat(data.values, data.sites, data.age).apply(data.values, data.sites, data.age).values, data.age
    )
    sites = np.asarray(data.sites)
    within = out.std(axis=0)
    for site in known():
        assert np.abs(out[sites == site].mean(axis=0) / within).max() < 0.03
        assert out[sites == site].std(axis=0) / within == pytest.approx(1, abs=0.08)


def test_the_effect_of_a_covariate_is_kept() -> None:
    data = plant(known(n=300))
    out = fit_combat(data.values, data.sites, data.age).apply(data.values, data.sites, data.age).values
    slopes = [np.polyfit(data.age[:, 0], table, 1)[0] for table in (out, data.truth)]
    assert slopes[0] / data.truth.std(axis=0) == pytest.approx(slopes[1] / data.truth.std(axis=0), abs=0.003)


def test_the_reference_site_stays_as_it_is_and_the_others_come_to_it() -> None:
    data = plant(known(n=300))
    out = fit_combat(data.values, data.sites, data.age, "site_3").apply(data.values, data.sites, data.age).values
    at = np.asarray(data.sites) == "site_3"
    assert np.array_equal(out[at], data.values[at])
    left = without_age(out, data.age)
    assert np.abs(left[~at].mean(axis=0) - left[at].mean(axis=0)).max() / left[at].std() < 0.1
    assert left[~at].std(axis=0) / left[at].std(axis=0) == pytest.approx(1, abs=0.05)


def test_missing_values_stay_missing_and_hardly_move_the_others() -> None:
    data = plant(known())
    holes = np.random.default_rng(1).random(data.values.shape) < 0.1
    values = np.where(holes, np.nan, data.values)
    out = fit_combat(values, data.sites, data.age).apply(values, data.sites, data.age).values
    full = fit_combat(data.values, data.sites, data.age).apply(data.values, data.sites, data.age).values
    assert np.array_equal(np.isnan(out), holes)
    assert np.nanmax(np.abs(out - full) / full.std(axis=0)) < 0.5
    assert np.nanmedian(np.abs(out - full) / full.std(axis=0)) < 0.05


def test_one_feature_s_missing_values_say_nothing_of_another_s() -> None:
    """Features meet only in the priors."""
    data = plant(known())
    values = data.values.copy()
    values[::3, 0] = np.nan
    some, whole = (fit_combat(table, data.sites) for table in (values, data.values))
    assert np.array_equal(some.mean[1:], whole.mean[1:])
    assert np.array_equal(some.scale[1:], whole.scale[1:])


def test_a_feature_that_one_site_never_measured_does_not_stop_the_fit() -> None:
    data = plant(known())
    values = data.values.copy()
    values[np.asarray(data.sites) == "site_2", 4] = np.nan
    combat = fit_combat(values, data.sites, data.age)
    assert np.isfinite(combat.location).all()
    assert np.isfinite(combat.apply(data.values, data.sites, data.age).values).all()


def test_a_feature_that_does_not_vary_within_sites_is_left_alone() -> None:
    data = plant(known())
    values = data.values.copy()
    values[:, 0] = 7.0
    values[:, 1] = [float(site[-1]) for site in data.sites]
    values[:, 2] = np.nan
    combat = fit_combat(values, data.sites)
    out = combat.apply(values, data.sites).values
    assert np.array_equal(out[:, :3], values[:, :3], equal_nan=True)
    assert np.isfinite(out[:, 3:]).all()
    elsewhere = combat.apply(values, ["elsewhere"] * len(values))
    assert np.array_equal(elsewhere.values[:, :3], values[:, :3], equal_nan=True)
    assert np.isnan(elsewhere.extrapolation[0].location_sd[:3]).all()


def test_a_single_feature_is_matched_without_shrinkage() -> None:
    data = plant(known(3))
    out = fit_combat(data.values[:, :1], data.sites).apply(data.values[:, :1], data.sites).values
    sites = np.asarray(data.sites)
    assert [float(out[sites == site].mean()) for site in known(3)] == pytest.approx([float(out.mean())] * 3)


@settings(deadline=None, max_examples=30)
@given(st.floats(0.01, 100), st.floats(-1000, 1000), st.integers(0, 99))
def test_units_do_not_matter(factor: float, offset: float, seed: int) -> None:
    data = plant({"a": 8, "b": 9, "c": 3}, seed)
    plain, scaled = (
        fit_combat(table, data.sites).apply(table, ["a", "b", "new"] * 6 + ["c"] * 2).values
        for table in (data.values, data.values * factor + offset)
    )
    assert (scaled - offset) / factor == pytest.approx(plain, rel=1e-6, abs=1e-6 * float(np.abs(plain).max()))


def decodability(values: Floats, others: Floats) -> float:
    """Mean over features of |difference of means| over the SD."""
    return float(np.mean(np.abs(values.mean(axis=0) - others.mean(axis=0)) / others.std(axis=0)))


@pytest.mark.parametrize("left_out", ["site_0", "site_3", "site_7"])
def test_a_site_that_was_never_seen_is_brought_to_the_others(left_out: str) -> None:
    rest, site = split(plant(known() | {left_out: 100}), left_out)
    combat = fit_combat(rest.values, rest.sites, rest.age)
    others, own = (combat.apply(part.values, part.sites, part.age).values for part in (rest, site))
    before = decodability(
        without_effects(site.values, combat, site.age), without_effects(rest.values, combat, rest.age)
    )
    after = decodability(without_effects(own, combat, site.age), without_effects(others, combat, rest.age))
    assert before > 0.3
    assert after < before / 3
    ratio = without_effects(own, combat, site.age).std(axis=0) / without_effects(others, combat, rest.age).std(axis=0)
    assert ratio == pytest.approx(1, abs=0.2)


def without_effects(values: Floats, combat: Combat, age: Floats) -> Floats:
    residual: Floats = values - age @ combat.effect
    return residual


def test_one_row_of_an_unseen_site_is_not_harmed() -> None:
    """Over many sites of one row each, what comes out is nearer to the row without any site."""
    single = {f"x{k}": 1 for k in range(200)}
    rest, _ = split(plant(known()), "none")
    combat = fit_combat(rest.values, rest.sites, rest.age)
    both = plant(known() | single)
    new = select(both, np.char.startswith(np.asarray(both.sites), "x"))
    out = combat.apply(new.values, new.sites, new.age)
    error = [np.mean(((table - new.truth) / combat.scale) ** 2) for table in (new.values, out.values)]
    assert error[1] < error[0]
    assert len(out.extrapolation) == 200
    assert all(e.n_rows == 1 and np.isnan(e.log_scale_sd).all() for e in out.extrapolation)


@pytest.mark.parametrize("n", [1, 2, 5, 20])
def test_more_rows_of_an_unseen_site_bring_it_nearer(n: int) -> None:
    data = plant(known() | {f"x{k}": n for k in range(40)} | {f"y{k}": 4 * n for k in range(40)})
    rest = select(data, np.char.startswith(np.asarray(data.sites), "site"))
    combat = fit_combat(rest.values, rest.sites, rest.age)
    errors = []
    for kind in "xy":
        new = select(data, np.char.startswith(np.asarray(data.sites), kind))
        out = combat.apply(new.values, new.sites, new.age).values
        errors.append(np.mean(((out - new.truth) / combat.scale) ** 2))
    assert errors[1] < errors[0]


def test_without_information_an_unseen_site_gets_exactly_the_mean_of_the_known_ones() -> None:
    """No row, a row that lies at that mean, and a feature that the row lacks."""
    data = plant(known())
    combat = fit_combat(data.values, data.sites)
    row = combat.mean + combat.scale * combat.between.location
    out = combat.apply(np.stack([row]), ["new"])
    assert out.values[0] == pytest.approx(combat.mean, rel=1e-12)
    location, variance = estimate_unseen(combat.between, np.empty((0, N_FEATURES)))
    assert np.array_equal(location, combat.between.location)
    assert np.array_equal(variance, np.exp(combat.between.log_variance))
    row[3] = np.nan
    holed = combat.apply(np.stack([row]), ["new"])
    assert np.isnan(holed.values[0, 3])
    assert np.isnan(holed.extrapolation[0].location_sd[3])


def test_an_unseen_site_never_moves_another() -> None:
    data, far = plant(known()), plant({"new": 30, "newer": 30}, shift=5)
    combat = fit_combat(data.values, data.sites)
    alone = combat.apply(data.values, data.sites).values
    both = combat.apply(np.concatenate([data.values, far.values]), data.sites + far.sites)
    assert np.array_equal(both.values[: len(alone)], alone)
    assert np.array_equal(both.values[len(alone) : len(alone) + 30], combat.apply(far.values[:30], ["new"] * 30).values)
    assert [e.site for e in both.extrapolation] == ["new", "newer"]


def test_what_was_found_of_an_unseen_site_can_be_kept_for_its_later_scans() -> None:
    rest, site = split(plant(known() | {"new": 200}), "new")
    combat = fit_combat(rest.values, rest.sites, rest.age)
    kept = combat.with_sites(site.values[:100], site.sites[:100], site.age[:100])
    out = kept.apply(site.values, site.sites, site.age)
    assert out.extrapolation == ()
    first = combat.apply(site.values[:100], site.sites[:100], site.age[:100])
    assert out.values[:100] == pytest.approx(first.values, rel=1e-12)
    others = without_effects(kept.apply(rest.values, rest.sites, rest.age).values, combat, rest.age)
    later = without_effects(out.values[100:], combat, site.age[100:])
    assert decodability(later, others) < 0.25 * decodability(
        without_effects(site.values[100:], combat, site.age[100:]), without_effects(rest.values, combat, rest.age)
    )
    assert np.array_equal(kept.with_sites(rest.values, rest.sites, rest.age).location, kept.location)


@pytest.mark.parametrize("n", [2, 3, 5, 30])
def test_the_log_of_a_variance_of_few_rows_is_corrected_for_how_few(n: int) -> None:
    """By the digamma and trigamma functions, of which the code has the first terms."""
    log_variance, error = _log_variance(np.array([float(n)]), np.array([1.0]))
    half = (n - 1) / 2
    assert log_variance[0] == pytest.approx(math.log(half) - digamma(half), rel=0.06)
    assert error[0] == pytest.approx(polygamma(1, half), rel=0.1)


def test_extrapolation_grows_with_distance() -> None:
    shares, distances = [], []
    for by in (0, 3, 6, 12):
        rest, site = split(plant(known() | {"new": 50}, far="new", by=by), "new")
        told = fit_combat(rest.values, rest.sites, rest.age).apply(site.values, site.sites, site.age).extrapolation[0]
        shares.append(told.share_beyond_2)
        distances.append(float(np.mean(told.location_sd)))
    assert distances == sorted(distances)
    assert shares == sorted(shares)
    assert shares[0] < 0.3
    assert shares[-1] == 1


def test_a_site_like_the_others_is_rarely_called_far() -> None:
    """By chance one of two normal deviates exceeds two in about one feature of eleven."""
    data = plant(known(20) | {f"x{k}": 30 for k in range(60)})
    rest = select(data, np.char.startswith(np.asarray(data.sites), "site"))
    new = select(data, np.char.startswith(np.asarray(data.sites), "x"))
    told = fit_combat(rest.values, rest.sites, rest.age).apply(new.values, new.sites, new.age).extrapolation
    assert float(np.mean([e.share_beyond_2 for e in told])) == pytest.approx(0.09, abs=0.05)


def test_extrapolation_says_what_it_rests_on() -> None:
    rest, site = split(plant(known() | {"new": 4}, far="new", by=10), "new")
    combat = fit_combat(rest.values, rest.sites, rest.age)
    told = combat.apply(site.values, site.sites, site.age + np.array([[0], [0], [200], [200]])).extrapolation[0]
    assert told.covariates_outside == (0.5,)
    assert told.because.endswith(".")
    assert told.because.count(".") == 1
    assert "4 rows" in told.because
    assert "covariate 0 is outside the fitted range in 50% of rows" in told.because


def test_confounding_is_none_for_balanced_and_whole_for_nested_covariates() -> None:
    data = plant(known())
    sick = np.tile([0.0, 1.0], len(data.sites) // 2)[:, None]
    by_site = np.asarray([[float(site > "site_3")] for site in data.sites])
    assert fit_combat(data.values, data.sites).confounding == 0
    assert fit_combat(data.values, data.sites, sick).confounding == 0
    assert fit_combat(data.values, data.sites, data.age).confounding < 0.05
    assert fit_combat(data.values, data.sites, by_site).confounding == pytest.approx(1)
    assert fit_combat(data.values, data.sites, np.hstack([sick, by_site])).confounding == pytest.approx(1)


def test_rows_with_a_missing_covariate_are_left_out_and_come_back_missing() -> None:
    data = plant(known())
    age = data.age.copy()
    age[5] = np.nan
    combat = fit_combat(data.values, data.sites, age)
    out = combat.apply(data.values, data.sites, age).values
    assert np.isnan(out[5]).all()
    assert np.isfinite(np.delete(out, 5, axis=0)).all()


@pytest.mark.parametrize("n_covariates", [0, 1])
def test_it_survives_strict_json(n_covariates: int) -> None:
    data = plant(known() | {"new": 7})
    values, age = data.values.copy(), data.age[:, :n_covariates]
    values[:, 0] = 1
    rest = np.asarray(data.sites) != "new"
    known_sites = [site for site in data.sites if site != "new"]
    combat = fit_combat(values[rest], known_sites, age[rest], "site_1")
    text = combat.to_json()
    json.loads(text, parse_constant=pytest.fail)
    copy = Combat.from_json(text)
    assert copy.to_json() == text
    first, second = (fitted.apply(values, data.sites, age) for fitted in (combat, copy))
    assert np.array_equal(first.values, second.values)
    assert first.extrapolation[0].because == second.extrapolation[0].because


def test_what_cannot_be_fitted_is_refused_in_words() -> None:
    data = plant(known(3))
    with pytest.raises(EmptySample, match="sites of a ComBat fit"):
        fit_combat(data.values, ["one"] * len(data.sites))
    with pytest.raises(EmptySample, match="rows of site lone"):
        fit_combat(data.values, ["lone", *data.sites[1:]])
    with pytest.raises(UnknownName, match="site_0, site_1, site_2"):
        fit_combat(data.values, data.sites, reference="elsewhere")
    with pytest.raises(GeometryMismatch):
        fit_combat(data.values, data.sites[1:])
    with pytest.raises(GeometryMismatch):
        fit_combat(data.values, data.sites, data.age).apply(data.values, data.sites)
    with pytest.raises(GeometryMismatch):
        fit_combat(data.values, data.sites).apply(data.values[:, 1:], data.sites)


def test_input_is_left_alone() -> None:
    data = plant(known(3))
    values, age = data.values.copy(), data.age.copy()
    fit_combat(values, data.sites, age).apply(values, data.sites, age)
    assert np.array_equal(values, data.values)
    assert np.array_equal(age, data.age)
