"""The command line: `pesfit`, or `python -m pesfit`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from pesfit.application.commands import add_commands
from pesfit.core.exceptions import ParamsError, PesfitError


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status: 0, or 1 or 2 after one message on stderr (see `errors`), or 130 after Ctrl-C."""
    parser = argparse.ArgumentParser(prog="pesfit", description=__doc__)
    parser.add_argument("--version", action="version", version=f"pesfit {_version()}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    params = commands.add_parser("params", help="print every parameter with its default, what it allows, and its meaning")
    params.add_argument(
        "--check", metavar="FILE", type=Path, nargs="?", const=Path("params.yaml"), help="validate FILE (params.yaml) instead"
    )
    params.set_defaults(run=_params)

    show = commands.add_parser("show", help="print a summary of a data set, such as data/arrow/xtb")
    show.add_argument("path", metavar="PATH", type=Path, help="a data set, or a folder of data sets")
    show.set_defaults(run=_show)

    add_commands(commands)

    options = parser.parse_args(arguments)
    try:
        options.run(options)
    except PesfitError as error:
        print(f"pesfit: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("pesfit: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `pesfit params | head`
        sys.stderr.close()
    return 0


def _version() -> str:
    try:
        return version("pesfit")
    except PackageNotFoundError:  # run from a checkout that is on PYTHONPATH alone
        return "(not installed)"


def _params(options: argparse.Namespace) -> None:
    from pesfit.params.load import Params, load_params
    from pesfit.params.section import parameters

    if options.check:
        print(f"{options.check}: profile {load_params(options.check).profile}; every parameter is allowed")
        return
    for parameter in parameters(Params):
        print(f"{parameter.key} = {parameter.default}\n    {parameter.allowed}\n    {parameter.description}")


def _show(options: argparse.Namespace) -> None:
    from pesfit.data.dataset import ConformerDataset, open_datasets
    from pesfit.data.describe import summarize

    path: Path = options.path
    if not path.exists():
        raise ParamsError(f"{path} does not exist; expected a data set such as data/arrow/xtb")
    single = (path / "state.json").is_file()
    data_sets = {path.name: ConformerDataset(path)} if single or not path.is_dir() else open_datasets(path)
    print("\n\n".join(summarize(data_set) for data_set in data_sets.values()))


if __name__ == "__main__":
    sys.exit(main())
