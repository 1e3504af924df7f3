"""The moving average of weights."""

from __future__ import annotations

import numpy as np
import torch

from pesfit.painn.train.ema import MovingAverage


def test_it_is_the_weighted_sum_of_all_weights() -> None:
    history = torch.randn(300, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    average = MovingAverage(history[0], decay=0.9)
    for weights in history[1:]:
        average.update(weights)
    # a_T = Σ_t c_t w_t with c_t = (1 - d_t) Π_(u > t) d_u, c_0 = Π d_u
    t = np.arange(1, 300)
    d = np.minimum(0.9, (1 + t) / (10 + t))
    after = np.append(np.cumprod(d[::-1])[::-1], 1.0)
    coefficients = np.append(after[0], (1 - d) * after[1:])
    assert np.isclose(coefficients.sum(), 1.0)
    torch.testing.assert_close(average.values, torch.tensor(coefficients) @ history, rtol=1e-12, atol=1e-14)


def test_without_decay_it_follows_exactly() -> None:
    average = MovingAverage(torch.zeros(5), decay=0.0)
    weights = torch.randn(5)
    average.update(weights)
    assert torch.equal(average.values, weights)


def test_it_stands_in_for_the_weights_and_gives_them_back() -> None:
    weights = torch.nn.Parameter(torch.arange(4.0))
    average = MovingAverage(weights, decay=0.5)
    with torch.no_grad():
        weights.add_(1.0)
    view = weights[1:3]
    with average.in_place_of(weights):
        assert view.tolist() == [1.0, 2.0]
    assert view.tolist() == [2.0, 3.0]
    assert average.values.tolist() == [0.0, 1.0, 2.0, 3.0]
