"""The whole stage on small data sets: what is shared, what fails, what is counted, and that workers change nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from rdkit import Chem

from pesfit.core.arrays import FloatArray
from pesfit.core.exceptions import ForceFieldError, ParamsError, TooManyFailuresError
from pesfit.data.dataset import ConformerDataset, DatasetWriter, Record, read_failures
from pesfit.data.topology import ParameterizedSet
from pesfit.parameterize.stage import parameterize_datasets
from pesfit.params.preparation import AssignCharges, Parameterize
from tests.parameterize import interchange_oracle as oracle
from tests.parameterize.offxml import write_offxml

ETHANOL = oracle.mapped("CCO")
ACETATE = oracle.mapped("CC(=O)[O-]")
SODIUM = "[Na+:1]"
GASTEIGER = AssignCharges(methods=("dataset", "gasteiger"))


def _record(id: str, smiles: str | None, charges: FloatArray | None = None, elements: list[int] | None = None) -> Record:  # noqa: A002
    molecule = Chem.MolFromSmiles(smiles or "[H:1][H:2]", sanitize=False)
    by_map = sorted((atom.GetAtomMapNum(), atom.GetAtomicNum(), atom.GetFormalCharge()) for atom in molecule.GetAtoms())
    atomic_numbers = np.array(elements or [element for _, element, _ in by_map], dtype=np.int32)
    return Record(
        id=id,
        smiles=smiles,
        atomic_numbers=atomic_numbers,
        coords=np.zeros((1, len(atomic_numbers), 3)),
        energy=np.zeros(1),
        forces=None,
        charges=charges,
        total_charge=sum(charge for _, _, charge in by_map),
        group="group",
        source="made-up",
        frame=np.zeros(1, dtype=np.int64),
    )


def _datasets(folder: Path, **records: list[Record]) -> dict[str, ConformerDataset]:
    for name, rows in records.items():
        with DatasetWriter(folder / name, {"made-up": "none"}) as writer:
            for row in rows:
                writer.write(row)
    return {name: ConformerDataset(folder / name) for name in records}


def _contents(folder: Path) -> Mapping[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_records_of_one_molecule_share_a_topology(tmp_path: Path) -> None:
    charges = np.linspace(-0.4, 0.4, 9)
    datasets = _datasets(
        tmp_path,
        one=[_record("a", ETHANOL), _record("b", ETHANOL, charges), _record("c", None), _record("d", ETHANOL, charges + 1e-12)],
        two=[_record("a", ETHANOL), _record("e", ACETATE), _record("f", SODIUM)],
    )
    metrics = parameterize_datasets(datasets, Parameterize(charges=GASTEIGER), tmp_path / "out")
    stored = ParameterizedSet.open(tmp_path / "out")
    indices = [
        stored.index(*key) for key in (("one", "a"), ("two", "a"), ("one", "b"), ("one", "d"), ("two", "e"), ("two", "f"))
    ]
    assert indices == [0, 0, 1, 2, 3, 4]
    assert stored.topology("one", "c") is None
    methods = [topology.charge_method for topology in map(stored.__getitem__, range(len(stored)))]
    assert methods == ["gasteiger", "dataset", "dataset", "gasteiger", "force-field"]
    np.testing.assert_allclose(stored[1].charges, charges, rtol=0, atol=2e-14)
    assert [stored[i].charges.sum() for i in range(5)] == [0.0, 0.0, 0.0, -1.0, 1.0]
    assert read_failures(tmp_path / "out" / "failures.csv") == []
    assert metrics["datasets"]["one"] == {
        "records": 4,
        "records_parameterized": 3,
        "records_failed": 0,
        "records_without_smiles": 1,
        "molecules": 3,
    }
    assert metrics["molecules"] == {"distinct": 5, "parameterized": 5, "failed": 0}
    assert metrics["molecules_by_charge_method"] == {"dataset": 2, "nagl": 0, "sqm": 0, "gasteiger": 2, "force-field": 1}
    assert metrics["parameters"]["vdW"]["terms"] == 9 * 3 + 7 + 1
    assert metrics["parameters"]["Bonds"]["terms"] == stored.force_field.tables["Bonds"].uses.sum() == 8 * 3 + 6


def test_failures_are_rows_and_stop_nothing(tmp_path: Path) -> None:
    records = [
        _record("good", ETHANOL),
        _record("radical", "[C:1]([H:2])([H:3])[H:4]"),
        _record("again", "[C:1]([H:2])([H:3])[H:4]"),
        _record("helium", "[He:1]"),
        _record("pair", "[Na+:1].[Cl-:2]"),
        _record("stereo", "[C:1]([F:2])([Cl:3])([Br:4])[H:5]"),
        _record("boron", "[B:1]([H:2])([H:3])[H:4]"),
        _record("water", "[O:1]([H:2])[H:3]"),
        _record("order", "[O:1]([H:2])[Cl:3]", elements=[8, 17, 1]),
        _record("charge", ACETATE, np.full(7, 0.1)),
        _record("empty", ""),
        _record("also good", SODIUM),
    ]
    params = Parameterize(max_failed_fraction=0.95, charges=AssignCharges(methods=("dataset",)))
    metrics = parameterize_datasets(_datasets(tmp_path, set=records), params, tmp_path / "out")
    failures = {failure.id: failure for failure in read_failures(tmp_path / "out" / "failures.csv")}
    assert {name: failure.kind for name, failure in failures.items()} == {
        "set/good": "ChargeCalculationError",
        "set/radical": "RadicalsNotSupportedError",
        "set/again": "RadicalsNotSupportedError",
        "set/helium": "UnassignedVdWError",
        "set/pair": "MultipleFragmentsError",
        "set/stereo": "UndefinedStereochemistryError",
        "set/boron": "UnassignedBondError",
        "set/water": "ConstrainedMoleculeError",
        "set/order": "ElementsError",
        "set/charge": "ChargeCalculationError",
        "set/empty": "EmptySmilesError",
    }
    assert {failure.stage for failure in failures.values()} == {"parameterize"}
    assert metrics["datasets"]["set"]["records_failed"] == 11
    assert metrics["molecules"] == {"distinct": 11, "parameterized": 1, "failed": 10}
    assert len(ParameterizedSet.open(tmp_path / "out")) == 1


def test_more_failures_than_allowed_stop_the_stage(tmp_path: Path) -> None:
    datasets = _datasets(tmp_path, set=[_record("good", SODIUM), _record("bad", "[He:1]"), _record("again", "[He:1]")])
    with pytest.raises(
        TooManyFailuresError, match=r"1 of 2 molecules failed.*\n  set/bad: UnassignedVdWError: no vdW parameter for"
    ):
        parameterize_datasets(datasets, Parameterize(max_failed_fraction=0.4), tmp_path / "out")


@pytest.mark.usefixtures("worker_pool")
def test_number_of_workers_changes_no_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smiles = ["CCO", "CC(=O)[O-]", "c1ccccc1", "CC#N", "CS(C)(=O)=O", "C[NH3+]", "[He]", "FC(F)F"]
    datasets = _datasets(tmp_path, set=[_record(f"{i}", oracle.mapped(one)) for i, one in enumerate(smiles)])
    metrics = []
    for workers in ("1", "2"):
        monkeypatch.setenv("PESFIT_WORKERS", workers)
        metrics.append(
            parameterize_datasets(datasets, Parameterize(max_failed_fraction=0.5, charges=GASTEIGER), tmp_path / workers)
        )
    assert metrics[0] == metrics[1]
    assert _contents(tmp_path / "1") == _contents(tmp_path / "2")


def test_charges_of_the_force_field_give_way_to_those_of_the_data_only(tmp_path: Path) -> None:
    library = '<LibraryCharges version="0.3"><LibraryCharge smirks="[*:1]" charge1="0.0 * elementary_charge"/></LibraryCharges>'
    name = write_offxml(tmp_path, LibraryCharges=library)
    charges = np.linspace(-0.4, 0.4, 9)
    datasets = _datasets(tmp_path, set=[_record("with", ETHANOL, charges), _record("without", ETHANOL)])
    found = {}
    for methods in (("dataset", "gasteiger"), ("gasteiger", "dataset"), ("gasteiger",)):
        params = Parameterize(force_field=name, charges=AssignCharges(methods=methods))
        parameterize_datasets(datasets, params, tmp_path / "-".join(methods))
        stored = ParameterizedSet.open(tmp_path / "-".join(methods))
        topologies = [stored.topology("set", record) for record in ("with", "without")]
        found[methods] = [topology.charge_method for topology in topologies if topology is not None]
    assert found == {
        ("dataset", "gasteiger"): ["dataset", "force-field"],
        ("gasteiger", "dataset"): ["force-field", "force-field"],
        ("gasteiger",): ["force-field", "force-field"],
    }
    assert len(ParameterizedSet.open(tmp_path / "gasteiger")) == 1, "charges of the data set are not asked for"


def test_increments_need_a_method_for_what_they_are_added_to(tmp_path: Path) -> None:
    model = '<ChargeIncrementModel version="0.4" partial_charge_method="{}"/>'
    datasets = _datasets(tmp_path, set=[_record("a", ETHANOL)])
    kinds = {}
    for base in ("gasteiger", "am1bcc"):
        name = write_offxml(tmp_path, ChargeIncrementModel=model.format(base))
        params = Parameterize(force_field=name, charges=AssignCharges(methods=("gasteiger",)), max_failed_fraction=1.0)
        parameterize_datasets(datasets, params, tmp_path / base)
        kinds[base] = [failure.kind for failure in read_failures(tmp_path / base / "failures.csv")]
    assert kinds == {"gasteiger": [], "am1bcc": ["ChargeMethodError"]}


def test_what_is_wrong_from_the_start_stops_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = _datasets(tmp_path, set=[_record("a", ETHANOL)])
    with pytest.raises(ForceFieldError, match="neither a file nor installed"):
        parameterize_datasets(datasets, Parameterize(force_field="sage"), tmp_path / "out")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ParamsError, match="sqm"):
        parameterize_datasets(datasets, Parameterize(charges=AssignCharges(methods=("sqm",))), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_no_record_with_a_smiles_gives_an_empty_set(tmp_path: Path) -> None:
    metrics = parameterize_datasets(_datasets(tmp_path, set=[_record("a", None)]), Parameterize(), tmp_path / "out")
    assert metrics["datasets"]["set"]["records_without_smiles"] == 1
    assert len(ParameterizedSet.open(tmp_path / "out")) == 0
