"""The formats that stages hand over to each other.

- `dataset`: molecules with their conformers and labels as Arrow tables; `Record`, `ConformerDataset`, `DatasetWriter`, `open_datasets`.
- `topology`: the output of stage 03: `ForceField` (parameters as numbers), `Topology` (indices into them), `ParameterizedSet`.
- `splits`: the output of stage 05: training, validation or test for every conformer; `Splits`.
- `rollouts`: names and tables of stage 08's output.
- `sources`: names of sources in parameters, and the data they stand for.
- `describe`: a data set in words, for `pesfit show`.

Read `dataset` first, with the schema in docs/conventions.md.
"""
