"""Stage 01: published archives and data sets of the user's own, as they came, in `data/raw`.

- `stage`: `download_sources`, the stage: internet, mirror (folder or URL) or cache, and the copy of the user's own data sets.
- `catalog`: the files of each source, their addresses, sizes and checksums.
- `transfer`: `fetch`, one file by HTTP: resumed, retried with exponential backoff, checked.
- `integrity`: `Expected` sizes and checksums, and what compares files with them.
- `cache`: `CachedFile`, shared by all checkouts; files without a published checksum are trusted on first use.

Read `stage` and `catalog` first. A new source adds its files to `catalog` alone.
"""
