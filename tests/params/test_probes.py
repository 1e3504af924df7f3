"""Part `probes` of section `rollout`."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from pesfit.params.probes import Probes


def test_times_are_whole_multiples() -> None:
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
