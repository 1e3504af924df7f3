"""The copy that stage 01 makes of data sets of the user's own, so that what comes of them is tracked like anything downloaded."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pesfit.params.preparation import OwnData
from pesfit.sources.download.cache import copy_checked
from pesfit.sources.download.integrity import Expected, Received
from pesfit.sources.download.part import check_free_space
from pesfit.sources.own_folder import OWN, open_own


def copy_own(entries: Sequence[OwnData], output: Path) -> dict[str, Received]:
    """Copy data sets to `<output>/own/<name>/`, with what belongs to them alone, after all of them have been looked at.

    Args:
        entries: of `sources.own`.
        output: a folder that exists.

    Returns:
        Size and SHA-256 of each file, by its path below `output`.

    Raises:
        DataError: as `open_own` does.
        DownloadError: if the disk is full, or a file cannot be read or written.
    """
    places = {own.name: Path(own.path).expanduser() for own in entries}
    files = {own.name: open_own(own, places[own.name]).files for own in entries}
    for name, folder in places.items():
        check_free_space(output, sum((folder / file).stat().st_size for file in files[name]), f"copying {folder}")
    copied: dict[str, Received] = {}
    for name, folder in places.items():
        target = output / OWN / name
        target.mkdir(parents=True)
        for file in files[name]:
            copied[f"{OWN}/{name}/{file}"] = copy_checked(folder / file, target / file, Expected(), f"{name}/{file}")
    return copied
