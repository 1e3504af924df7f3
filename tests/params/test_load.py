"""params.yaml: what is refused, and how the message reads."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pesfit.__main__ import main
from pesfit.core.exceptions import ParamsError
from pesfit.params.load import Params, load_params
from pesfit.params.section import parameters

ROOT = Path(__file__).resolve().parents[2]
MINIMAL = "profile: small\nprofiles:\n  small: {}\n"


def load(tmp_path: Path, text: str) -> Params:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    return load_params(path)


def test_the_projects_own_file_lists_every_parameter_with_its_default() -> None:
    from ruamel.yaml import YAML

    document = YAML(typ="safe", pure=True).load(ROOT / "params.yaml")
    for parameter in parameters(Params):
        value = document
        if "[]" in parameter.key:  # inside a list of sections
            continue
        for key in parameter.key.split("."):
            assert key in value, f"params.yaml does not list {parameter.key}"
            value = value[key]
    profiles = document.pop("profiles")
    assert set(profiles) == {"small", "full"}
    assert Params.model_validate_json(json.dumps(document)) == Params()
    assert load_params(ROOT / "params.yaml").profile == "small"


def test_every_parameter_is_described_and_bounded() -> None:
    for parameter in parameters(Params):
        assert parameter.description, parameter.key
        if parameter.allowed.startswith(("a number", "a whole number")):
            assert re.search(r"[<>]", parameter.allowed), f"{parameter.key} has no bounds"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cluster: {cutof_angstrom: 0.3}", "cluster.cutof_angstrom = 0.3: unknown key (did you mean cutoff_angstrom?)"),
        ("cluster: {cutoff_angstrom: -1.0}", "cluster.cutoff_angstrom = -1.0: expected a number > 0 and <= 10"),
        ("cluster: {cutoff_angstrom: '0.3'}", 'cluster.cutoff_angstrom = "0.3": expected a number > 0 and <= 10'),
        ("cluster: {cutoff_angstrom: .nan}", "cluster.cutoff_angstrom = NaN: expected a number > 0 and <= 10"),
        ("convert: {xtb: {n_samples: 1.5}}", "convert.xtb.n_samples = 1.5: expected a whole number >= 1"),
        ("convert: {xtb: {n_samples: true}}", "convert.xtb.n_samples = true: expected a whole number >= 1"),
        ("sources: {rmd17: [ethanl]}", 'sources.rmd17.0 = "ethanl": expected one of aspirin'),
        ("sources: {rmd17: [ethanl]}", "(did you mean ethanol?)"),
        (
            "split: {group_by: molecul}",
            'split.group_by = "molecul": expected one of molecule, connectivity (did you mean molecule?)',
        ),
        ("split: {rules: []}", "split.rules = []: expected a list of at least 1"),
        ("split: {rules: [{source: rmd17}]}", "split.rules.0.by: missing; expected one of molecule, frame"),
        ("clster: {}", "clster = {}: unknown key (did you mean cluster?)"),
        ("cluster: 3", "cluster = 3: expected a mapping"),
        ("cluster: {a: 1, a: 2}", "not valid YAML"),
        ("cluster: {cutoff_angstrom: 2020-01-01}", "only strings, numbers, booleans, null, lists and mappings are allowed"),
    ],
)
def test_what_is_wrong_is_said_on_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ParamsError) as caught:
        load(tmp_path, f"{MINIMAL}{text}\n")
    lines = [line for line in str(caught.value).splitlines() if message in line]
    assert len(lines) == 1, str(caught.value)
    assert lines[0].startswith(str(tmp_path / "params.yaml"))
    assert caught.value.exit_status == 2


def test_a_value_of_a_profile_is_blamed_on_the_profile_even_if_another_is_chosen(tmp_path: Path) -> None:
    text = "profile: small\ncluster: {symmetry: true}\nprofiles:\n  small: {}\n  full: {cluster: {symmetry: 1}}\n"
    with pytest.raises(ParamsError, match=r"profiles\.full\.cluster\.symmetry = 1: expected true or false"):
        load(tmp_path, text)


def test_a_profile_replaces_values_and_whole_lists_but_merges_sections(tmp_path: Path) -> None:
    text = (
        "profile: full\ncluster: {symmetry: true, sources: [rmd17]}\n"
        "profiles:\n  small: {}\n  full: {cluster: {sources: [md17], cutoff_angstrom: 1e-1}}\n"
    )
    cluster = load(tmp_path, text).cluster
    assert (cluster.symmetry, cluster.sources, cluster.cutoff_angstrom) == (True, ("md17",), 0.1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("profile: fll\nprofiles: {full: {}}", r"profile = 'fll': expected one of full \(did you mean full\?\)"),
        ("profile: small", "profile = 'small': expected one of the names under profiles"),
        ("- a", "expected a mapping of sections, found list"),
        ("profile: small\nprofiles: {small: {profile: full}}", r"profiles\.small: expected a mapping of section names"),
    ],
)
def test_a_malformed_frame_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        load(tmp_path, text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"nothing\.yaml is missing"):
        load_params(tmp_path / "nothing.yaml")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda inner: st.dictionaries(st.text(), inner)
    )
)
def test_no_value_of_a_section_makes_anything_but_a_clear_error(
    tmp_path_factory: pytest.TempPathFactory, value: object
) -> None:
    from ruamel.yaml import YAML

    path = tmp_path_factory.mktemp("params") / "params.yaml"
    YAML().dump({"profile": "small", "profiles": {"small": {}}, "cluster": value}, path)
    said = ""
    try:
        load_params(path)
    except ParamsError as error:
        said = str(error)
    assert not said or all(line.startswith(str(path)) for line in said.splitlines())


def test_the_command_line_prints_and_checks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["params"]) == 0
    assert "cluster.cutoff_angstrom = 0.25\n    a number > 0 and <= 10\n" in capsys.readouterr().out
    path = tmp_path / "p.yaml"
    path.write_text("profile: small\nprofiles: {small: {}}\nsplit: {seed: -1}\n")
    assert main(["params", "--check", str(path)]) == 2
    assert "split.seed = -1: expected a whole number >= 0" in capsys.readouterr().err
    assert main(["params", "--check", str(ROOT / "params.yaml")]) == 0


def test_files_of_the_users_own_lie_where_dvc_tracks_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    for name in ("datasets", "force-fields", "mirror"):
        (tmp_path / "inputs" / name).mkdir(parents=True)
    (tmp_path / "inputs/datasets/mine").mkdir()
    path = tmp_path / "params.yaml"
    path.write_text(
        "profiles: {small: {}}\nparameterize: {force_field: inputs/force-fields/mine.offxml}\ndownload: {mirror: inputs/mirror}\n"
        f"sources: {{own: [{{name: mine, path: inputs/datasets/mine}}, {{name: also, path: {tmp_path}/inputs/datasets/also}}]}}"
    )
    load_params(path)
    (tmp_path / "inputs/mirror/espaloma").symlink_to(tmp_path / "elsewhere")
    path.write_text(
        "profiles: {small: {}}\nparameterize: {force_field: ../mine.offxml}\ndownload: {mirror: inputs/mirror}\n"
        f"sources: {{own: [{{name: mine, path: '{tmp_path}/my data'}}]}}"
    )
    with pytest.raises(ParamsError) as caught:
        load_params(path)
    tracked = "whose content DVC tracks; to link it there"
    assert str(caught.value).splitlines() == [
        (
            f'{path}: parameterize.force_field = "../mine.offxml": expected a path below inputs/force-fields, '
            f"{tracked}: ln -s {tmp_path.parent}/mine.offxml inputs/force-fields/"
        ),
        (
            f'{path}: download.mirror = "inputs/mirror": inputs/mirror/espaloma is a link to a folder, which DVC does not follow; '
            f"to link its files: rm inputs/mirror/espaloma && cp -rs {tmp_path}/elsewhere inputs/mirror/espaloma"
        ),
        (
            f'{path}: sources.own.0.path = "{tmp_path}/my data": expected a path below inputs/datasets, '
            f"{tracked}: cp -rs '{tmp_path}/my data' inputs/datasets/"
        ),
    ]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            "{conservative: outputs/learned/direct, direct: outputs/learned/conservative}",
            "conservative would start from weights",
        ),
        ("{direct: outputs/learned/direct/ensemble/1}", "direct would start from weights that are trained after it"),
        ("{direct: /weights}", 'initial_weights.direct = "/weights": expected a folder of this repository'),
    ],
)
def test_networks_start_from_weights_that_are_there_before(weights: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(f"profiles: {{small: {{}}}}\ninitial_weights: {weights}")
    with pytest.raises(ParamsError, match=re.escape(message)):
        load_params(path)
    path.write_text("profiles: {small: {initial_weights: {}}}")
    with pytest.raises(ParamsError, match=r"profiles\.small\.initial_weights: expected at the top of the file"):
        load_params(path)
