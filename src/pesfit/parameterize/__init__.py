"""Stage 03: SMIRNOFF parameters and partial charges for every distinct molecule, as openff-interchange assigns them.

- `stage`: `parameterize_datasets`, the stage, and the writer of its `ParameterizedSet`.
- `engine`: `parameterize`, one molecule from mapped SMILES to `Topology`; `Request` and `Setup` are what goes in.
- `force_field`: an .offxml read into numbers and patterns. `molecule`: a SMILES read as the OpenFF toolkit reads it.
  `assign`: the patterns matched.
- `charges`: library charges, increments, and the methods in their order; `nagl` (with `nagl_features`, `nagl_file`), `sqm`.
- `exceptions`: reasons why a molecule cannot be parameterized, one class each.

Read `engine` first, then down the list. `smirnoff.model` uses `engine` for molecules of users.
"""
