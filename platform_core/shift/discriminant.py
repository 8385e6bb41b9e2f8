"""A linear discriminant that calls only rows which it has not seen: how well can two groups be told apart?"""

import numpy as np

from platform_core.shift.risk import Reals

N_FOLDS = 5


def cross_fitted(x: Reals, y: Reals, *, seed: int = 0) -> Reals:
    """How far each row lies on the side of group 1, as a discriminant that has not seen the row places it.

    Args:
        x: (rows, dimensions), finite.
        y: 1 or 0 for each row; one row per patient, else the folds share patients.
        seed: Of the folds.

    Returns:
        (rows,); above 0 the row is called 1. All 0 in a fold whose other rows are of one group only.
    """
    fold = np.random.default_rng(seed).permutation(len(y)) % N_FOLDS
    side = np.zeros(len(y))
    for held in range(N_FOLDS):
        is_held = fold == held
        if len(np.unique(y[~is_held])) == 2:
            side[is_held] = _discriminate(x[~is_held], y[~is_held], x[is_held])
    return side


def _discriminate(x: Reals, y: Reals, new: Reals) -> Reals:
    """Linear discriminant with a ridge on the within-class covariance of standardised dimensions, even odds.

    The ridge grows with dimensions per row (0.1 + d / 2n), so that few rows do not overfit.
    """
    centre, spread = x.mean(axis=0), x.std(axis=0)
    spread[spread == 0] = 1
    z, z_new = (x - centre) / spread, (new - centre) / spread
    means = [z[y == value].mean(axis=0) for value in (0, 1)]
    within = z - np.where((y == 1)[:, None], means[1], means[0])
    covariance = within.T @ within / len(z) + (0.1 + z.shape[1] / (2 * len(z))) * np.eye(z.shape[1])
    direction = np.linalg.solve(covariance, means[1] - means[0])
    return np.asarray((z_new - (means[0] + means[1]) / 2) @ direction, dtype=np.float64)
