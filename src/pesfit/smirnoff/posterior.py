r"""The posterior of a SMIRNOFF fit as a file, and the standard deviations that follow from it for any molecule.

Forces are linear in the vector x of `parameters.Layout`, energies are but for an offset (`features`), so with x ~ N(x̂, Σ)

    var F = fᵀ Σ f,    var (E - E_ref) = (φ - φ_ref)ᵀ Σ (φ - φ_ref),    var E = φ₀ᵀ Σ φ₀

| symbol | meaning |
| --- | --- |
| f, φ | features of a component of the force and of the energy |
| φ₀ | φ minus what it is where all bonds and angles have the lengths and sizes q₀ of the force field: the derivative of ½ k (q - q₀)² |
| Σ | covariance of the posterior; parameters that no molecule of the fit uses keep their prior, widths² σ²/λ |

This is the uncertainty of the parameters that the data leave. Errors that no parameters could remove are not in it; see the test set.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from pesfit.core.arrays import BoolArray, FloatArray, LongArray
from pesfit.core.exceptions import DataError
from pesfit.data.topology import BONDED_HANDLERS, ForceField, ParameterTable, Topology
from pesfit.params.fit_smirnoff import Train
from pesfit.smirnoff.features import MoleculeFeatures
from pesfit.smirnoff.parameters import MINIMUM, Layout
from pesfit.statistics.linear_gaussian import Posterior
from pesfit.uncertainty.standard_deviations import StandardDeviations

FORMAT_VERSION = 1
_MINIMUM_KEY = "centre"  # codespell:ignore centre
"""Spelling of format version 1."""
_PERIODICITY, _PHASE = 1, 2


def write_posterior(path: Path, force_field: ForceField, layout: Layout, posterior: Posterior) -> None:
    """Write the posterior of the trained parameters, and the prior of those that no molecule of the fit uses.

    Parameters are named by handler, SMIRKS, and for torsions periodicity and phase, since rows of the written force field may be others.

    Args:
        path: the file.
        force_field: the starting force field, whose rows the layout indexes.
        layout: meaning of x.
        posterior: of x.
    """
    unused = Layout.unused(force_field, layout.train)
    both = [(layout, "", layout.prior().widths), (unused, "unused_", unused.prior().widths)]
    named = {prefix + key: values for of, prefix, widths in both for key, values in _named(force_field, of, widths).items()}
    np.savez(
        path,
        format_version=np.array(FORMAT_VERSION),
        **named,
        x=posterior.x,
        covariance=posterior.covariance,
        noise_variance=np.array(posterior.noise_variance),
        prior_strength=np.array(posterior.strength),
    )


def _named(force_field: ForceField, layout: Layout, widths: FloatArray) -> dict[str, Any]:
    tables = [force_field.tables[BONDED_HANDLERS[handler]] for handler in layout.handler]
    torsion = [
        table.values[row] if table.handler not in MINIMUM else np.zeros(4)
        for table, row in zip(tables, layout.row, strict=True)
    ]
    return {
        "handler": np.array([table.handler for table in tables], dtype=np.str_),
        "smirks": np.array([table.smirks[row] for table, row in zip(tables, layout.row, strict=True)], dtype=np.str_),
        "periodicity": np.array([values[_PERIODICITY] for values in torsion], dtype=np.float64),
        "phase": np.array([values[_PHASE] for values in torsion], dtype=np.float64),
        "row": layout.row,
        "is_shift": layout.is_shift,
        _MINIMUM_KEY: layout.minimum,
        "prior_widths": widths,
    }


@dataclass(frozen=True, eq=False)
class SmirnoffPosterior:
    """A stored posterior, matched with the force field that was written beside it.

    Attributes:
        force_field: with the starting lengths and angles, about which features are.
        layout: the parameters, with those that no molecule of the fit uses at the end; rows are those of the force field.
        minimum: [unit of the table] fitted q₀ of each, shape (n,).
        covariance: of the first ones, shape (n_fitted, n_fitted).
        unused_variance: of the last ones, shape (n - n_fitted,).
    """

    force_field: ForceField
    layout: Layout
    minimum: FloatArray
    covariance: FloatArray
    unused_variance: FloatArray

    @classmethod
    def read(cls, path: Path, force_field: ForceField) -> SmirnoffPosterior:
        """Read the file of `write_posterior`.

        Args:
            path: the file.
            force_field: the fitted one, as read from its .offxml.

        Raises:
            DataError: where the file is damaged, has another format version, or belongs to another force field.
        """
        try:
            with path.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                version = int(stored["format_version"])
                if version != FORMAT_VERSION:
                    raise DataError(f"{path} has format version {version}; this version reads {FORMAT_VERSION}")
                arrays = {name: stored[name] for name in stored.files}
            return cls._of(arrays, force_field, path)
        except (OSError, ValueError, KeyError, IndexError, EOFError, BadZipFile) as error:
            raise DataError(f"{path} cannot be read as the posterior of a fit: {type(error).__name__}: {error}") from error

    @classmethod
    def _of(cls, stored: dict[str, Any], force_field: ForceField, path: Path) -> SmirnoffPosterior:
        n_fitted = len(stored["handler"])
        if stored["covariance"].shape != (n_fitted, n_fitted):
            raise ValueError(f"covariance of shape {stored['covariance'].shape}; expected {n_fitted} rows and columns")

        def joined(name: str) -> Any:
            return np.concatenate([stored[name], stored[f"unused_{name}"]])

        rows = _rows(force_field, joined("handler"), joined("smirks"), joined("periodicity"), joined("phase"))
        handler = np.array([BONDED_HANDLERS.index(name) for name in joined("handler")], dtype=np.int64)
        missing = (rows < 0) & (joined("periodicity") == 0.0)
        if missing.any():
            first = int(np.flatnonzero(missing)[0])
            raise DataError(
                f"{path} names {joined('handler')[first]} {joined('smirks')[first]}, which {force_field.name} lacks; "
                "expected the posterior that was written with it"
            )
        # Periodicities that were added and stayed at 0 are not written, and then no molecule has such a term.
        kept = rows >= 0
        fitted, unused = kept[:n_fitted], kept[n_fitted:]
        layout = Layout(
            handler[kept], rows[kept], joined("is_shift")[kept], np.zeros(kept.sum()), joined(_MINIMUM_KEY)[kept], Train()
        )
        prior_variance = float(stored["noise_variance"]) / float(stored["prior_strength"])
        return cls(
            _about(force_field, layout),
            layout,
            _minima(force_field, layout),
            stored["covariance"][np.ix_(fitted, fitted)],
            prior_variance * stored["unused_prior_widths"][unused] ** 2,
        )

    def of(self, topology: Topology) -> MoleculePosterior:
        """Return the part that one molecule's energy depends on.

        Raises:
            MoleculeError: where the topology's arrays do not fit together.
        """
        features = MoleculeFeatures(topology, self.force_field, self.layout)
        columns, n_fitted = features.columns, len(self.covariance)
        fitted = columns < n_fitted
        covariance = np.zeros((len(columns), len(columns)))
        covariance[np.ix_(fitted, fitted)] = self.covariance[np.ix_(columns[fitted], columns[fitted])]
        covariance[~fitted, ~fitted] = self.unused_variance[columns[~fitted] - n_fitted]
        shift = self.minimum[columns] - self.layout.minimum[columns]
        is_shift, is_harmonic = self.layout.is_shift[columns], _is_harmonic(self.layout)[columns]
        at_minimum = features.uses * np.where(is_shift, -shift, np.where(is_harmonic, 0.5 * shift**2, 0.0))
        return MoleculePosterior(features, covariance, np.asarray(at_minimum, dtype=np.float64))


class MoleculePosterior:
    """Standard deviations of one molecule, from the posterior of its parameters (a `uncertainty.standard_deviations.Uncertainty`).

    Args:
        features: of the molecule.
        covariance: of its entries of x, shape (n_local, n_local).
        at_minimum: features of the energy where all bonds and angles are at the force field's q₀, shape (n_local,).
    """

    def __init__(self, features: MoleculeFeatures, covariance: FloatArray, at_minimum: FloatArray) -> None:
        self._features = features
        self._at_minimum = at_minimum
        values, vectors = np.linalg.eigh(covariance)
        self._root = (vectors * np.sqrt(np.maximum(values, 0.0))).T

    def __call__(self, coords: FloatArray, reference: FloatArray | None = None) -> StandardDeviations:
        """Return standard deviations; see `uncertainty.standard_deviations.Uncertainty`.

        Raises:
            CoincidentAtomsError: where two atoms that interact are at the same place.
        """
        origin = self._energy_features(coords[:1] if reference is None else reference[None])[:, 0]
        energy, relative, forces = [], [], []
        for rows in self._features.rows(coords, np.zeros(len(coords)), np.zeros(coords.shape)):
            phi = rows.energy[:-1]
            energy.append(self._deviation(phi - self._at_minimum[:, None]))
            relative.append(self._deviation(phi - origin[:, None]))
            of_forces = self._deviation(rows.forces[:-1].reshape(len(phi), -1))
            forces.append(of_forces.reshape(self._features.n_atoms, 3, -1).transpose(2, 0, 1))
        return StandardDeviations(np.concatenate(energy), np.concatenate(relative), np.concatenate(forces))

    def _energy_features(self, coords: FloatArray) -> FloatArray:
        blocks = self._features.rows(coords, np.zeros(len(coords)), None)
        return np.concatenate([rows.energy[:-1] for rows in blocks], axis=1)

    def _deviation(self, features: FloatArray) -> FloatArray:
        projected: FloatArray = self._root @ features
        return np.asarray(np.sqrt((projected * projected).sum(axis=0)))


def _rows(force_field: ForceField, handlers: Any, smirks: Any, periodicities: FloatArray, phases: FloatArray) -> LongArray:
    """Find named parameters in a force field: rows of the handlers' tables, -1 where it has none."""
    found = {
        handler: {_key(table, row): row for row in range(len(table.smirks))} for handler, table in force_field.tables.items()
    }
    keys = zip(smirks.tolist(), periodicities.tolist(), phases.tolist(), strict=True)
    return np.array([found[handler].get(key, -1) for handler, key in zip(handlers.tolist(), keys, strict=True)], dtype=np.int64)


def _key(table: ParameterTable, row: int) -> tuple[str, float, float]:
    if table.handler not in BONDED_HANDLERS or table.handler in MINIMUM:
        return table.smirks[row], 0.0, 0.0
    return table.smirks[row], float(table.values[row, _PERIODICITY]), float(table.values[row, _PHASE])


def _is_harmonic(layout: Layout) -> BoolArray:
    return np.asarray(np.isin(layout.handler, [BONDED_HANDLERS.index(handler) for handler in MINIMUM]))


def _minima(force_field: ForceField, layout: Layout) -> FloatArray:
    minima = np.zeros(len(layout))
    for i in np.flatnonzero(_is_harmonic(layout)).tolist():
        table = force_field.tables[BONDED_HANDLERS[layout.handler[i]]]
        minima[i] = table.values[layout.row[i], table.columns.index(MINIMUM[table.handler])]
    return minima


def _about(force_field: ForceField, layout: Layout) -> ForceField:
    """Return the force field with the starting lengths and angles, about which features are linear."""
    tables = dict(force_field.tables)
    for index, handler in enumerate(BONDED_HANDLERS):
        if handler in MINIMUM:
            mine, values = layout.handler == index, tables[handler].values.copy()
            values[layout.row[mine], tables[handler].columns.index(MINIMUM[handler])] = layout.minimum[mine]
            tables[handler] = replace(tables[handler], values=values)
    return replace(force_field, tables=tables)
