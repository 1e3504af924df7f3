r"""The last layer of a conservative network as linear regression: features, posterior and the standard deviations that follow.

The last layer is linear, y_i = w·h_i + b with h_i its input at atom i. So are the energy and the forces in x = (Δw, Δb), the change
of the last layer from the trained one::

    E(x) - E(0) = φᵀx        φ = scale · (Σ_i h_i, n_atoms)
    F(x) - F(0) = fᵀx        f = -∂φ/∂coords

and with x ~ N(x̂, Σ)

    var F = fᵀ Σ f,    var (E - E_ref) = (φ - φ_ref)ᵀ Σ (φ - φ_ref),    var E = φᵀ Σ φ

D. J. C. MacKay, Neural Computation 4, 448, 1992, and the last layer alone: J. Snoek et al., ICML 2015, arXiv:1502.05700. The features
are taken as known, so this is the uncertainty of the last layer alone, a part of the uncertainty of the network.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from pesfit.core.arrays import FloatArray, IntArray
from pesfit.core.exceptions import DataError
from pesfit.painn.potential import WEIGHTS_FILE, PaiNNPotential
from pesfit.potentials.neighbors import find_edges
from pesfit.uncertainty.standard_deviations import StandardDeviations

FORMAT_VERSION = 1
LAST_LAYER_FILE = "last-layer.npz"

_PAIRS_AT_ONCE = 2048
"""Possible pairs of atoms computed at once: small enough for a processor's cache."""


def atom_features(potential: PaiNNPotential, element: Tensor, r: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Compute the contribution of each atom to φ.

    Args:
        potential: whose last layer it is.
        element: index in `config.elements`, int64, shape (n_atoms,).
        r: [Å], x[second] - x[first], shape (n_pairs, 3); features can be differentiated where it asks for that.
        first: of each pair within the cutoff, once; int64, shape (n_pairs,).
        second: same shape.

    Returns:
        [kcal/mol], float64, shape (n_atoms, n_features); the last column is that of the bias.
    """
    hidden = potential.network.hidden(element, r.to(potential.config.dtype), first, second).double()
    return potential.scale * torch.cat([hidden, hidden.new_ones(len(hidden), 1)], dim=1)


def features_and_slopes(
    potential: PaiNNPotential, element: Tensor, r: Tensor, first: Tensor, second: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute the contribution of each atom to φ, and f, by one backward pass for each feature.

    A loop, because vmap over the features takes twice as long: its arrays do not stay in the cache.

    Args:
        potential: whose last layer it is.
        element: as of `atom_features`; conformers are disjoint parts of one graph.
        r: as of `atom_features`.
        first: as of `atom_features`.
        second: as of `atom_features`.

    Returns:
        [kcal/mol], float64, shape (n_atoms, n_features), and [kcal/mol/Å], float64, shape (n_atoms, 3, n_features).
    """
    with torch.enable_grad():
        r = r.detach().to(potential.config.dtype).requires_grad_()
        features = atom_features(potential, element, r, first, second)
        sums = features.sum(0)
    slopes = features.new_zeros(len(element), 3, features.shape[1])
    if len(first):
        for k in range(features.shape[1] - 1):  # the bias has no slope
            (pull,) = torch.autograd.grad(sums[k], r, retain_graph=True)
            slopes[:, :, k].index_add_(0, first, pull.double()).index_add_(0, second, -pull.double())
    return features.detach(), slopes


def last_layer(potential: PaiNNPotential) -> FloatArray:
    """Return (w, b), shape (n_features,)."""
    layer = potential.network.energy_head[1]
    weights: FloatArray = torch.cat([layer.weight.detach().reshape(-1), layer.bias.detach()]).double().cpu().numpy()
    return weights


@dataclass(frozen=True, eq=False)
class LastLayerPosterior:
    """The posterior of x, the change of the last layer; x = 0 is the trained layer, which the potential uses.

    Attributes:
        mean: x̂, shape (n_features,).
        covariance: Σ, shape (n_features, n_features).
        energy_noise_variance: of energies about the network, chosen by evidence, [(kcal/mol)²].
        force_noise_variance: of components of forces, [(kcal/mol/Å)²]; NaN without labels.
        strength: λ of the prior.
        energy_weight: weight of a row of energies beside 1 for a row of forces, in Å².
    """

    mean: FloatArray
    covariance: FloatArray
    energy_noise_variance: float
    force_noise_variance: float
    strength: float
    energy_weight: float

    def write(self, folder: Path) -> None:
        """Write beside the network's weights, which the file names by their digest. The same posterior gives the same bytes.

        Args:
            folder: with the weights that x is a change of.
        """
        numbers: dict[str, Any] = {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}
        version, digest = np.array(FORMAT_VERSION), np.array(_digest(folder))
        np.savez(folder / LAST_LAYER_FILE, format_version=version, weights_sha256=digest, **numbers)

    @classmethod
    def read(cls, folder: Path) -> LastLayerPosterior | None:
        """Read a posterior; None where there is no such file.

        Raises:
            DataError: where the file is damaged, has another format version, or belongs to another network.
        """
        path = folder / LAST_LAYER_FILE
        if not path.exists():
            return None
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                version = int(stored["format_version"])
                if version != FORMAT_VERSION:
                    raise DataError(f"{path} has format version {version}; this version reads {FORMAT_VERSION}")
                arrays = {name: stored[name] for name in stored.files}
            return cls._of(arrays, folder)
        except (OSError, ValueError, TypeError, KeyError, EOFError, BadZipFile) as error:
            raise DataError(
                f"{path} cannot be read as the posterior of a last layer: {type(error).__name__}: {error}"
            ) from error

    @classmethod
    def _of(cls, stored: dict[str, Any], folder: Path) -> LastLayerPosterior:
        if str(stored["weights_sha256"]) != _digest(folder):
            raise DataError(
                f"{folder / LAST_LAYER_FILE} belongs to other weights than {folder / WEIGHTS_FILE}; "
                "expected the posterior that was written with them"
            )
        mean, covariance = (np.asarray(stored[name], dtype=np.float64) for name in ("mean", "covariance"))
        if mean.ndim != 1 or covariance.shape != (len(mean), len(mean)):
            raise ValueError(f"mean of shape {mean.shape} and covariance of shape {covariance.shape}")
        if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
            raise ValueError("numbers that are not finite")
        names = ("energy_noise_variance", "force_noise_variance", "strength", "energy_weight")
        return cls(mean, covariance, *(float(stored[name]) for name in names))

    def of(self, potential: PaiNNPotential, atomic_numbers: IntArray) -> NetworkUncertainty:
        """Return the uncertainty of one molecule.

        Args:
            potential: the network it belongs to.
            atomic_numbers: shape (n_atoms,).

        Raises:
            DataError: where the potential's last layer has another size.
        """
        if len(self.mean) != len(last_layer(potential)):
            raise DataError(f"a posterior of {len(self.mean)} numbers for a last layer of {len(last_layer(potential))}")
        return NetworkUncertainty(potential, self, atomic_numbers)


class NetworkUncertainty:
    """Standard deviations that follow from the posterior of the last layer (an `uncertainty.standard_deviations.Uncertainty`).

    Forces take one backward pass for each feature: about as long as 15 evaluations of the network for 32 features.

    Args:
        potential: the network.
        posterior: of its last layer.
        atomic_numbers: of the molecule, shape (n_atoms,).
    """

    def __init__(self, potential: PaiNNPotential, posterior: LastLayerPosterior, atomic_numbers: IntArray) -> None:
        self._potential = potential
        self._device = potential.scale.device
        self._atomic_numbers = torch.from_numpy(atomic_numbers.astype(np.int64)).to(self._device)
        values, vectors = np.linalg.eigh(posterior.covariance)
        self._root = torch.from_numpy(vectors * np.sqrt(np.maximum(values, 0.0))).to(self._device)

    def __call__(self, coords: FloatArray, reference: FloatArray | None = None) -> StandardDeviations:
        """Return standard deviations; see `uncertainty.standard_deviations.Uncertainty`.

        Raises:
            DataError: where the network does not know an element.
        """
        n_atoms = len(self._atomic_numbers)
        origin = self._energy_features(coords[:1] if reference is None else reference[None])
        at_once = max(1, _PAIRS_AT_ONCE // n_atoms**2)
        energy, relative, forces = [], [], []
        for start in range(0, len(coords), at_once):
            part = coords[start : start + at_once]
            graph, nan_where_invalid = self._graph(part)
            of_atoms, slopes = features_and_slopes(self._potential, *graph)
            phi = (of_atoms + nan_where_invalid).view(len(part), n_atoms, -1).sum(1)
            energy.append(self._standard_deviation(phi))
            relative.append(self._standard_deviation(phi - origin))
            forces.append(self._standard_deviation(slopes + nan_where_invalid.unsqueeze(2)).reshape(len(part), n_atoms, 3))
        return StandardDeviations(*(np.concatenate(parts) for parts in (energy, relative, forces)))

    def _graph(self, coords: FloatArray) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], Tensor]:
        """Return element, r, first and second of conformers, and 0 for each atom, NaN where its coordinates are not finite."""
        x = torch.from_numpy(np.array(coords, dtype=np.float64)).reshape(-1, 3).to(self._device)
        sizes, cutoff = ((len(coords), len(self._atomic_numbers)),), self._potential.config.network.cutoff_angstrom
        first, second = find_edges(x, sizes, cutoff).pairs()
        element = self._potential.element_index(self._atomic_numbers).repeat(len(coords))
        return (element, x[second] - x[first], first, second), (0.0 * x).sum(1, keepdim=True)

    def _energy_features(self, coords: FloatArray) -> Tensor:
        graph, nan_where_invalid = self._graph(coords)
        with torch.no_grad():
            of_atoms = atom_features(self._potential, *graph)
        return (of_atoms + nan_where_invalid).view(len(coords), len(self._atomic_numbers), -1).sum(1)

    def _standard_deviation(self, features: Tensor) -> FloatArray:
        projected = features @ self._root
        return np.asarray((projected * projected).sum(-1).sqrt().cpu().numpy())


def _digest(folder: Path) -> str:
    return hashlib.sha256((folder / WEIGHTS_FILE).read_bytes()).hexdigest()
