"""PaiNN against schnetpack's own model, and what a potential on disk, at the cutoff and among strangers must do."""

from __future__ import annotations

import json
import pickle
import shutil
import typing
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.utils.data.dataloader

from pesfit.core.exceptions import DataError
from pesfit.painn.potential import PaiNNConfig, PaiNNPotential, Variant, build_painn, load_painn, transfer_weights
from pesfit.params.train_learned import Network
from pesfit.potentials.interface import Batch, Conformers, collate
from pesfit.potentials.neighbors import Edges, find_edges

GOLDEN = Path(__file__).parent / "painn-v1"
SMALL = Network(n_features=16, n_interactions=2, n_rbf=8, cutoff_angstrom=4.0)
EXACT = Network(n_features=16, n_interactions=2, n_rbf=8, cutoff_angstrom=4.0, precision="float64")
ATOMREFS = torch.tensor([-313.25, -23870.5, -47120.75], dtype=torch.float64)
VARIANTS: tuple[Variant, ...] = ("conservative", "direct")


def potential(variant: Variant = "conservative", network: Network = SMALL, seed: int = 1) -> PaiNNPotential:
    return build_painn(PaiNNConfig(variant, (1, 6, 8), network), atomrefs=ATOMREFS, scale=13.0, seed=seed)


def molecules() -> Batch:
    """Two conformers of a molecule of nine atoms, one of four, and an atom alone."""
    generator = torch.Generator().manual_seed(4)

    def conformers(atomic_numbers: list[int], n_conformers: int) -> Conformers:
        grid = 1.3 * torch.tensor([[i % 2, (i // 2) % 2, i // 4] for i in range(len(atomic_numbers))], dtype=torch.float64)
        noise = torch.randn(n_conformers, len(atomic_numbers), 3, generator=generator, dtype=torch.float64)
        return Conformers(torch.tensor(atomic_numbers), grid + 0.1 * noise)

    return collate([conformers([6, 6, 8, 1, 1, 1, 1, 1, 1], 2), conformers([8, 6, 1, 1], 1), conformers([6], 1)])


@pytest.fixture(scope="module")
def schnetpack() -> Any:
    """All of schnetpack, which 2.1.1 cannot import beside a current torch without help."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        vars(torch.utils.data.dataloader).setdefault("T_co", typing.TypeVar("T_co", covariant=True))
        import schnetpack

        return schnetpack


def schnetpack_inputs(schnetpack: Any, batch: Batch, cutoff: float, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    edges = find_edges(batch.coords, batch.sizes, cutoff)
    names = schnetpack.properties
    return {
        names.Z: batch.atomic_numbers,
        names.R: batch.coords.to(dtype),
        names.idx_m: batch.conformer,
        names.idx_i: edges.first,
        names.idx_j: edges.second,
        names.offsets: torch.zeros(len(edges.first), 3, dtype=dtype),
    }


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize(("network", "tolerance"), [(SMALL, 2e-6), (EXACT, 1e-13)])
def test_schnetpacks_own_model_with_the_same_weights_says_the_same(schnetpack: Any, network: Network, tolerance: float) -> None:
    ours = potential(network=network)
    cutoff = network.cutoff_angstrom
    theirs = schnetpack.model.NeuralNetworkPotential(
        representation=schnetpack.representation.PaiNN(
            network.n_features,
            network.n_interactions,
            schnetpack.nn.GaussianRBF(network.n_rbf, cutoff),
            schnetpack.nn.CosineCutoff(cutoff),
        ),
        input_modules=[schnetpack.atomistic.PairwiseDistances()],
        output_modules=[
            schnetpack.atomistic.Atomwise(network.n_features, output_key="energy"),
            schnetpack.atomistic.Forces(),
        ],
    ).to(ours.config.dtype)
    weights = ours.network.state_dict()
    for name in list(weights):
        if name.startswith("energy_head"):
            weights[name.replace("energy_head", "output_modules.0.outnet")] = weights.pop(name)
    theirs.load_state_dict(weights)
    batch = molecules()
    prediction = ours(batch)
    said = theirs(schnetpack_inputs(schnetpack, batch, cutoff, ours.config.dtype))
    atomrefs = torch.zeros(batch.n_conformers, dtype=torch.float64).index_add(
        0, batch.conformer, ATOMREFS[ours.element_index(batch.atomic_numbers)]
    )
    close(prediction.energy - atomrefs, 13.0 * said["energy"].double(), 13.0 * 10.0 * tolerance)
    close(prediction.forces, 13.0 * said["forces"].double(), 13.0 * tolerance)
    assert float(prediction.forces.abs().max()) > 1.0


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_direct_forces_are_what_schnetpacks_modules_say(schnetpack: Any) -> None:
    ours = potential("direct", EXACT)
    batch = molecules()
    inputs = schnetpack_inputs(schnetpack, batch, 4.0, torch.float64)
    inputs["_Rij"] = batch.coords[inputs["_idx_j"]] - batch.coords[inputs["_idx_i"]]
    features = ours.network.representation(inputs)
    _, vectors = ours.network.force_head((features["scalar_representation"], features["vector_representation"]))
    close(ours(batch).forces, 13.0 * vectors.squeeze(2), 1e-12)


def test_schnetpack_can_still_be_imported_whole(schnetpack: Any) -> None:
    potential()
    assert schnetpack.representation.PaiNN.__module__ == "schnetpack.representation.painn"
    assert schnetpack.md is not None


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_atom_at_the_cutoff_joins_smoothly(variant: Variant) -> None:
    model = potential(variant, EXACT)
    distances = torch.linspace(3.9, 4.1, 201, dtype=torch.float64)
    coords = torch.zeros(len(distances), 3, 3, dtype=torch.float64)
    coords[:, 1, 0] = 1.2
    coords[:, 2, 0] = 1.2 + distances
    prediction = model(collate([Conformers(torch.tensor([6, 8, 1]), coords)]))
    energy, force = prediction.energy.detach().numpy(), prediction.forces.detach().reshape(-1, 3, 3)[:, :, 0].numpy()
    alone = model(collate([Conformers(torch.tensor([6, 8]), coords[:1, :2]), Conformers(torch.tensor([1]), coords[:1, 2:])]))
    close(prediction.energy[distances > 4.0], torch.full_like(distances[distances > 4.0], alone.energy.sum()), 1e-9)
    assert abs(energy[0] - energy[-1]) > 1e-5, "the cutoff must be felt"
    # Step of 0.001 Å: neither jumps, though both change by more across the range.
    assert np.abs(np.diff(energy)).max() < 0.05 * np.ptp(energy)
    assert np.abs(np.diff(force, axis=0)).max() < 0.05 * np.ptp(force, axis=0).max()


def test_atoms_beyond_the_cutoff_do_not_see_each_other() -> None:
    model = potential(network=EXACT)
    apart = torch.tensor([[[0.0, 0.0, 0.0], [0.0, 0.0, 4.0001]]], dtype=torch.float64)
    prediction = model(collate([Conformers(torch.tensor([6, 8]), apart)]))
    single = [model(collate([Conformers(torch.tensor([z]), apart[:, :1])])).energy for z in (6, 8)]
    close(prediction.energy, single[0] + single[1], 1e-9)
    close(prediction.forces, torch.zeros(2, 3), 0.0)


def test_edges_of_another_cutoff_are_not_used() -> None:
    model, batch = potential(), molecules()
    expected = model(batch)
    wrong = Edges(torch.tensor([0, 1]), torch.tensor([1, 0]), 1.0)
    given = find_edges(batch.coords, batch.sizes, 4.0)
    for edges in (wrong, given):
        prediction = model(Batch(batch.coords, batch.atomic_numbers, batch.conformer, batch.sizes, edges=edges))
        assert torch.equal(prediction.energy, expected.energy)


@pytest.mark.parametrize("variant", VARIANTS)
def test_results_can_be_differentiated_where_coords_ask_for_it(variant: Variant) -> None:
    model = potential(variant, EXACT)
    batch = molecules()
    coords = batch.coords.clone().requires_grad_()
    prediction = model(Batch(coords, batch.atomic_numbers, batch.conformer, batch.sizes))
    (gradient,) = torch.autograd.grad(prediction.energy.sum(), coords, retain_graph=True)
    jacobian = torch.stack(
        [torch.autograd.grad(prediction.forces[0, k], coords, retain_graph=True)[0][:9].flatten() for k in range(3)]
    )[:, :3]
    antisymmetric = float((jacobian - jacobian.T).detach().abs().max())
    if variant == "conservative":
        close(-gradient, prediction.forces, 1e-10)
        assert antisymmetric < 1e-10
    else:
        assert antisymmetric > 1e-4
    assert not model(batch).forces.requires_grad


def test_elements_that_were_not_in_training_are_refused_by_name() -> None:
    chloromethane = collate([Conformers(torch.tensor([6, 17, 1]), torch.randn(1, 3, 3, dtype=torch.float64))])
    with pytest.raises(DataError, match=r"not trained on Cl; it knows H, C, O"):
        potential()(chloromethane)


@pytest.mark.parametrize("elements", [(), (6, 1), (1, 1), (0, 1), (1, 100)])
def test_lists_of_elements_that_make_no_sense_are_refused(elements: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match="ascending atomic numbers"):
        PaiNNConfig("direct", elements)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("network", [SMALL, EXACT])
def test_saved_potentials_reload_to_the_same_numbers_and_bytes(variant: Variant, network: Network, tmp_path: Path) -> None:
    model, batch = potential(variant, network), molecules()
    model.save(tmp_path / "one")
    loaded = load_painn(tmp_path / "one")
    loaded.save(tmp_path / "two")
    assert loaded.config == model.config
    for actual, expected in ((loaded(batch), model(batch)), (pickle.loads(pickle.dumps(model))(batch), model(batch))):
        assert torch.equal(actual.energy, expected.energy)
        assert torch.equal(actual.forces, expected.forces)
    for file in ("config.json", "model.safetensors"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


@pytest.mark.parametrize("variant", VARIANTS)
def test_potentials_saved_by_the_first_version_say_what_they_said(variant: Variant) -> None:
    said = json.loads((GOLDEN / "predictions.json").read_text())[variant]
    prediction = load_painn(GOLDEN / variant)(molecules())
    close(prediction.energy, torch.tensor(said["energy"], dtype=torch.float64), 1e-4)
    close(prediction.forces, torch.tensor(said["forces"], dtype=torch.float64), 1e-4)


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    with pytest.raises(DataError, match="does not hold a PaiNN potential"):
        load_painn(folder)
    shutil.copytree(GOLDEN / "direct", folder)
    config = json.loads((folder / "config.json").read_text())
    for changed, message in (
        ({"format_version": 2}, "version 2; this version reads pesfit-painn 1"),
        ({"network": config["network"] | {"n_features": 5}}, "size mismatch"),
        ({"variant": "other"}, "expected one of conservative, direct"),
    ):
        (folder / "config.json").write_text(json.dumps(config | changed))
        with pytest.raises(DataError, match=message):
            load_painn(folder)
    (folder / "config.json").write_text(json.dumps(config))
    weights = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(weights[:-10])
    with pytest.raises(DataError, match="does not hold a PaiNN potential"):
        load_painn(folder)


def test_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first, again, other = potential(seed=1), potential(seed=1), potential(seed=2)
    assert torch.equal(torch.random.get_rng_state(), before)
    weights = [torch.cat([parameter.flatten() for parameter in model.parameters()]) for model in (first, again, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_one_variant_starts_from_the_other() -> None:
    direct, conservative = potential("direct", seed=1), potential("conservative", seed=2)
    batch = molecules()
    assert transfer_weights(direct, conservative) == []
    assert torch.equal(conservative(batch).energy, direct(batch).energy)
    missing = transfer_weights(conservative, direct)
    assert missing
    assert all(name.startswith("network.force_head.") for name in missing)
    with pytest.raises(DataError, match="n_features = 8; this one has 16"):
        transfer_weights(potential(network=SMALL.model_copy(update={"n_features": 8})), conservative)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_scales_that_are_not_positive_are_refused(scale: float) -> None:
    with pytest.raises(DataError, match="scale"):
        build_painn(PaiNNConfig("direct", (1,), SMALL), scale=scale)


def close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    np.testing.assert_allclose(actual.detach().numpy(), expected.detach().numpy(), rtol=0.0, atol=tolerance)
