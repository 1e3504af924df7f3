"""The learning rate against torch's own schedulers and by hand."""

from __future__ import annotations

import pytest
import torch

from pesfit.painn.train.schedule import Schedule
from pesfit.params.train_learned import LearningRate


def test_warm_up_rises_evenly_to_the_peak() -> None:
    schedule = Schedule(LearningRate(peak=0.01, warmup_epochs=2.0, decay="constant"), n_epochs=10)
    assert [schedule.rate(x) for x in (0.5, 1.0, 1.5, 2.0, 9.0)] == pytest.approx([0.0025, 0.005, 0.0075, 0.01, 0.01])


def test_cosine_is_torchs() -> None:
    n_epochs, peak = 20, 0.3
    schedule = Schedule(LearningRate(peak=peak, warmup_epochs=0.0, final_fraction=0.1), n_epochs)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=peak)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_epochs, eta_min=0.1 * peak)
    for epoch in range(n_epochs + 1):
        assert schedule.rate(epoch) == pytest.approx(theirs.get_last_lr()[0], rel=1e-12)
        optimizer.step()
        theirs.step()


def test_cosine_ends_at_the_final_fraction_after_the_warm_up() -> None:
    schedule = Schedule(LearningRate(peak=1.0, warmup_epochs=4.0, final_fraction=0.02), n_epochs=10)
    assert schedule.rate(4.0) == pytest.approx(1.0)
    assert schedule.rate(7.0) == pytest.approx(0.51)
    assert schedule.rate(10.0) == pytest.approx(0.02)


def test_plateau_is_torchs() -> None:
    losses = [5.0, 4.0, 4.0, 4.1, 3.9, 3.9, 3.9, 3.9, 3.899, 3.8, 3.9, 3.9, 3.9, 3.9, 3.9, 3.9, 3.9, 3.9, 3.9, 3.9]
    params = LearningRate(
        peak=0.1, warmup_epochs=0.0, decay="plateau", plateau_patience=2, plateau_factor=0.5, final_fraction=0.2
    )
    schedule = Schedule(params, len(losses))
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=2, threshold=0.001, min_lr=0.02)
    for epoch, loss in enumerate(losses):
        assert schedule.rate(epoch) == pytest.approx(optimizer.param_groups[0]["lr"])
        theirs.step(loss)
        schedule.end_epoch(loss)
    assert schedule.rate(len(losses)) == pytest.approx(0.02)


def test_a_warm_up_longer_than_the_run_ends_at_the_peak() -> None:
    schedule = Schedule(LearningRate(peak=1.0, warmup_epochs=100.0), n_epochs=5)
    assert schedule.rate(5.0) == pytest.approx(1.0)
