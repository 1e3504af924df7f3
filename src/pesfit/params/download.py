"""Section `download`, for `01_download`."""

from __future__ import annotations

from pydantic import Field

from pesfit.params.base import Section


class Download(Section):
    """How files are fetched; what is fetched is said in `sources`."""

    mirror: str | None = Field(
        None,
        description="Folder, or http(s) base URL, used instead of the internet; it holds espaloma/*.tar.gz, "
        "rmd17/rmd17.tar.bz2 and md17/*.npz. A relative folder is taken from the top of the repository.",
    )
    retries: int = Field(
        5,
        ge=0,
        le=100,
        description="How often in a row a broken transfer is taken up again, each time after a longer pause; bytes that are new start "
        "the count again.",
    )
    timeout_s: float = Field(
        60.0, gt=0.0, le=3600.0, description="Seconds without a byte after which a transfer counts as broken."
    )
