"""Sections `rollout` and `analyse`: times must fit into each other."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from pesfit.params.evaluation import Probes, Rollout


def test_the_defaults_fit() -> None:
    assert Rollout().timestep_fs == 0.5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"observe_fs": 0.75}, r"observe_fs = 0.75 is not a whole number of times timestep_fs = 0.5"),
        ({"frame_fs": 7.0}, r"frame_fs = 7 is not a whole number of times observe_fs = 5"),
        ({"frame_fs": 1.0}, r"frame_fs = 1 is not a whole number of times observe_fs = 5"),
        ({"nvt": {"length_fs": 1010.0}}, r"nvt.length_fs = 1010 is not a whole number of times frame_fs = 20"),
        ({"nve": {"length_fs": 10.0}}, r"nve.length_fs = 10 is not a whole number of times"),
        ({"nvt": {"length_fs": 200.0}}, r"nvt.equilibration_fs = 250; less than nvt.length_fs = 200"),
    ],
)
def test_times_that_do_not_fit_are_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Rollout(**values)


def test_thirds_fit_into_wholes_in_spite_of_rounding() -> None:
    Rollout(timestep_fs=0.1, observe_fs=0.3, frame_fs=0.9, nve={"length_fs": 90.0}, nvt={"length_fs": 270.0})


def test_times_of_probes_are_whole_multiples() -> None:
    assert Probes(timestep_fs=0.5, frame_fs=10.0, equilibration_fs=0.0).frames == 32
    with pytest.raises(ValidationError, match=r"frame_fs = 20 is not a whole number of times timestep_fs = 0.3"):
        Probes(timestep_fs=0.3)
    with pytest.raises(ValidationError, match=r"equilibration_fs = 50 is not a whole number of times frame_fs = 20"):
        Probes(equilibration_fs=50.0)


@pytest.mark.parametrize(
    "values", [{"temperatures_kelvin": (0.0,)}, {"stretch_angstrom": (-0.2,)}, {"replicas": 0}, {"hot": 1}]
)
def test_what_makes_no_sense_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Probes.model_validate(values)
