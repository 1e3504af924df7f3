"""When a run ends early."""

from __future__ import annotations

from pesfit.painn.train.stopping import EarlyStopping


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
