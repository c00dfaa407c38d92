"""Heads: regressors from a vector an architecture to one property (scikit-learn)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np

# The grid of the code of https://arxiv.org/abs/2110.13100, searched by 5-fold cross-validation.
SVR_GRID = MappingProxyType(
    {
        "C": [1, 10, 50, 100, 200, 500, 1000],
        "gamma": ["auto", 0.05, 0.1, 0.2, 0.5],
        "epsilon": [0.05, 0.1, 0.2],
    }
)
_RIDGE_PENALTIES = np.logspace(-3, 4, 15)
_FOLDS = 5

Head = Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]


def svr(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, seed: int) -> np.ndarray:
    """Support vector regression with radial kernels on vectors as they are; targets are standardised."""
    from sklearn.model_selection import GridSearchCV, KFold
    from sklearn.svm import SVR

    folds = KFold(_FOLDS, shuffle=True, random_state=seed)
    search = GridSearchCV(SVR(cache_size=500), dict(SVR_GRID), scoring="neg_mean_squared_error", cv=folds)
    return _predicted(search, x, y, x_test)


def ridge(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, seed: int) -> np.ndarray:
    """Linear regression on standardised vectors, its penalty chosen by leave-one-out."""
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return _predicted(make_pipeline(StandardScaler(), RidgeCV(_RIDGE_PENALTIES)), x, y, x_test)


def boosting(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, seed: int) -> np.ndarray:
    """Gradient-boosted trees: 200 of depth 3, each on a random half of the architectures."""
    from sklearn.ensemble import GradientBoostingRegressor

    model = GradientBoostingRegressor(
        n_estimators=200, max_depth=3, learning_rate=0.05, subsample=0.5, random_state=seed
    )
    return _predicted(model, x, y, x_test)


def signed(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, seed: int) -> np.ndarray:
    """A score as it is, [n, 1], turned around where it falls as the property rises among the known labels."""
    from scipy.stats import kendalltau

    tau = kendalltau(x[:, 0], y).statistic
    return x_test[:, 0] * (-1.0 if tau < 0 else 1.0)


def constant(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, seed: int) -> np.ndarray:
    """The mean of the known labels for every architecture."""
    return np.full(len(x_test), y.mean())


HEADS: Mapping[str, Head] = MappingProxyType({"svr": svr, "ridge": ridge, "boosting": boosting})


def _predicted(model: Any, x: np.ndarray, y: np.ndarray, x_test: np.ndarray) -> np.ndarray:
    centre, scale = y.mean(), y.std() or 1.0
    model.fit(x, (y - centre) / scale)
    predicted: np.ndarray = model.predict(x_test) * scale + centre
    return predicted
