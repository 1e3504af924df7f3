"""A data set in words and numbers, for people."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
from ase.data import chemical_symbols

from pesfit.data.dataset import ConformerDataset, Record


@dataclass
class _SourceSummary:
    """What is counted for each source of a data set."""

    groups: set[str] = field(default_factory=set)
    records: int = 0
    conformers: int = 0
    with_forces: int = 0
    with_charges: int = 0
    with_smiles: int = 0
    atoms: list[int] = field(default_factory=list)
    total_charges: Counter[int] = field(default_factory=Counter)
    elements: Counter[int] = field(default_factory=Counter)
    energy_range: list[float] = field(default_factory=list)
    force_square: float = 0.0
    force_components: int = 0
    force_max: float = 0.0

    def add(self, record: Record) -> None:
        self.groups.add(record.group)
        self.records += 1
        self.conformers += record.n_conformers
        self.with_charges += record.charges is not None
        self.with_smiles += record.smiles is not None
        self.atoms.append(record.n_atoms)
        self.total_charges[record.total_charge] += 1
        self.elements.update(record.atomic_numbers.tolist())
        self.energy_range.append(float(np.ptp(record.energy)))
        if record.forces is not None:
            self.with_forces += record.n_conformers
            self.force_square += float(np.square(record.forces).sum())
            self.force_components += record.forces.size
            self.force_max = max(self.force_max, float(np.abs(record.forces).max()))

    def lines(self, level_of_theory: str) -> list[str]:
        elements = " ".join(f"{chemical_symbols[number]} {count}" for number, count in sorted(self.elements.items()))
        charges = ", ".join(
            f"{charge:+d} ({count})" if charge else f"0 ({count})" for charge, count in sorted(self.total_charges.items())
        )
        spread = f"median {np.median(self.energy_range):.2f}, largest {max(self.energy_range):.2f} kcal/mol"
        force = "none"
        if self.force_components:
            rms = np.sqrt(self.force_square / self.force_components)
            force = (
                f"{self.with_forces} conformers; root mean square {rms:.2f}, largest component {self.force_max:.2f} kcal/mol/Å"
            )
        return [
            f"  level of theory  {level_of_theory}",
            f"  molecules        {len(self.groups)} in {self.records} rows ({self.with_smiles} with SMILES)",
            f"  conformers       {self.conformers} (a row: {self.conformers / self.records:.1f} on average)",
            f"  atoms            {min(self.atoms)} to {max(self.atoms)} a molecule, median {np.median(self.atoms):.0f}",
            f"  elements         {elements}",
            f"  total charge     {charges} [e] (rows)",
            f"  energy range     in a row: {spread}",
            f"  forces           {force}",
            f"  charges          with {self.with_charges} of {self.records} rows",
        ]


def summarize(data_set: ConformerDataset) -> str:
    """Describe a data set: molecules, conformers, atoms, elements, energy and force ranges, level of theory, units.

    Reads every row once, one at a time.
    """
    tallies: dict[str, _SourceSummary] = {}
    for record in data_set:
        tallies.setdefault(record.source, _SourceSummary()).add(record)
    units = ", ".join(f"{name} {unit}" for name, unit in data_set.metadata["units"].items())
    lines = [f"{data_set.path}", f"  schema version   {data_set.metadata['schema_version']}", f"  units            {units}"]
    if not tallies:
        lines.append("  no rows")
    for source, tally in sorted(tallies.items()):
        lines += ["", f"{source}", *tally.lines(data_set.level_of_theory[source])]
    return "\n".join(lines)
