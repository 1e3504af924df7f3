"""Imported first by every stage: this checkout's own code, one thread for linear algebra, and a clear word if packages are missing."""

import importlib.util
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# An installed pesfit may be another checkout's: `dvc exp run --temp` and `--queue` run a copy of the repository.
sys.path.insert(0, str(ROOT / "src"))

# Processes, not threads, use the cores (`pesfit.core.parallel`): results must not depend on how a library divides a sum among threads.
for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[variable] = "1"

if importlib.util.find_spec("pydantic") is None:
    sys.exit(
        f"pesfit: this stage runs under {sys.executable}, which lacks pesfit's packages; "
        "use `make repro`, or activate the environment first: . .venv/bin/activate"
    )
