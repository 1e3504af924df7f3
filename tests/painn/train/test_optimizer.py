"""Weights as one vector, learning rate schedules against torch's own, the moving average, and early stopping."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pesfit.painn.train.optimizer import EarlyStopping, FlatParameters, LearningRateSchedule, MovingAverage
from pesfit.params.train_learned import LearningRate


def test_a_step_on_the_vector_is_a_step_of_the_model() -> None:
    torch.manual_seed(1)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.SiLU(), torch.nn.Linear(4, 1))
    other = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.SiLU(), torch.nn.Linear(4, 1))
    other.load_state_dict(model.state_dict())
    flat = FlatParameters(model)
    x = torch.randn(5, 3)
    optimizers = [torch.optim.AdamW([flat.vector], lr=0.1), torch.optim.AdamW(other.parameters(), lr=0.1)]
    for _ in range(3):
        gradients = torch.autograd.grad((model(x) ** 2).sum(), list(model.parameters()))
        flat.vector.grad = torch.cat([gradient.flatten() for gradient in gradients])
        optimizers[1].zero_grad()
        (other(x) ** 2).sum().backward()
        for optimizer in optimizers:
            optimizer.step()
    assert torch.equal(model(x), other(x))
    assert torch.equal(flat.vector, torch.cat([parameter.flatten() for parameter in other.parameters()]))


def test_warm_up_rises_evenly_to_the_peak() -> None:
    schedule = LearningRateSchedule(LearningRate(peak=0.01, warmup_epochs=2.0, decay="constant"), n_epochs=10)
    assert [schedule.rate(x) for x in (0.5, 1.0, 1.5, 2.0, 9.0)] == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.01])


def test_cosine_is_torchs() -> None:
    n_epochs, peak = 20, 0.3
    schedule = LearningRateSchedule(LearningRate(peak=peak, warmup_epochs=0.0, final_fraction=0.1), n_epochs)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_epochs, eta_min=0.1 * peak)
    for epoch in range(n_epochs + 1):
        assert schedule.rate(epoch) == pytest.approx(theirs.get_last_lr()[0], rel=1e-12)
        optimizer.step()
        theirs.step()


def test_cosine_ends_at_the_final_fraction_after_the_warm_up() -> None:
    schedule = LearningRateSchedule(LearningRate(peak=1.0, warmup_epochs=4.0, final_fraction=0.02), n_epochs=10)
    assert schedule.rate(4.0) == pytest.approx(1.0)
    assert schedule.rate(7.0) == pytest.approx(0.51)
    assert schedule.rate(10.0) == pytest.approx(0.02)


def test_plateau_is_torchs() -> None:
    losses = [5.0, 4.0, 4.0, 4.1, 3.9, 3.9, 3.9, 3.9, 3.899, 3.8, 3.9, 3.9, 3.9, 3.9, 3.9, 3.9, 3.9, 3.9, 3.9, 3.9]
    params = LearningRate(
        peak=0.1, warmup_epochs=0.0, decay="plateau", plateau_patience=2, plateau_factor=0.5, final_fraction=0.2
    )
    schedule = LearningRateSchedule(params, len(losses))
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=2, threshold=0.001, min_lr=0.02)
    for epoch, loss in enumerate(losses):
        assert schedule.rate(epoch) == pytest.approx(optimizer.param_groups[0]["lr"])
        theirs.step(loss)
        schedule.end_epoch(loss)
    assert schedule.rate(len(losses)) == pytest.approx(0.02)


def test_a_warm_up_longer_than_the_run_ends_at_the_peak() -> None:
    schedule = LearningRateSchedule(LearningRate(peak=1.0, warmup_epochs=100.0), n_epochs=5)
    assert schedule.rate(5.0) == pytest.approx(1.0)


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


def epochs_trained(losses: list[float], min_epochs: int, patience: int | None) -> tuple[int, int]:
    """Return how many epochs are trained, and which was best."""
    stopping = EarlyStopping(min_epochs, patience)
    for epoch, loss in enumerate(losses):
        stopping.is_best(epoch, loss)
        if stopping.stops_after(epoch):
            return epoch + 1, stopping.best_epoch
    return len(losses), stopping.best_epoch


def test_patience_counts_from_the_lowest_loss() -> None:
    losses = [3.0, 2.0, 1.0, 1.5, 1.2, 1.1, 0.9, 0.1]
    assert epochs_trained(losses, 0, 3) == (6, 2)
    assert epochs_trained(losses, 0, 4) == (8, 7)


def test_the_first_epochs_are_trained_in_any_case() -> None:
    assert epochs_trained([1.0] + [2.0] * 20, 10, 3) == (10, 0)
    assert epochs_trained([1.0] + [2.0] * 20, 2, 3) == (4, 0)


def test_without_patience_it_never_stops() -> None:
    assert epochs_trained([1.0] + [2.0] * 99, 0, None) == (100, 0)


def test_an_equal_loss_is_no_new_low() -> None:
    assert epochs_trained([1.0, 1.0, 1.0, 1.0], 0, 2) == (3, 0)
