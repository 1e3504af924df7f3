"""Names of potentials, in the order in which every table and figure shows them."""

from __future__ import annotations

from collections.abc import Iterable

POTENTIALS = {
    "gfn2": "GFN2-xTB",
    "smirnoff-initial": "SMIRNOFF, initial",
    "smirnoff": "SMIRNOFF, fitted",
    "conservative": "PaiNN, conservative",
    "direct": "PaiNN, direct",
}
"""What files call a potential, and what a reader sees."""
_NO_POTENTIALS = {"ensemble": "PaiNN, ensemble"}
"""What has deviations of its own for a potential's energies and forces."""


def label_of(potential: str) -> str:
    """Return what a reader sees; a name that is not known as it is."""
    return (POTENTIALS | _NO_POTENTIALS).get(potential, potential)


def in_order(potentials: Iterable[str]) -> list[str]:
    """Return distinct names in the order of `POTENTIALS`, unknown ones last by name."""
    order = list(POTENTIALS)
    return sorted(set(potentials), key=lambda name: (order.index(name) if name in order else len(order), name))
