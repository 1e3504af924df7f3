"""Infrastructure that knows no chemistry: errors, units, files, processes, and the frame around a stage of the pipeline.

Read in this order:

- `exceptions`: `PesfitError` and the tree below it; `Failure`, the value that stands for one molecule that could not be handled.
- `units`, `arrays`: conversion factors into kcal/mol, Å, fs; names of array types.
- `files`: `atomic_write`, `write_json`. `plotting`: one palette, and PNG files that depend on the data alone.
- `parallel`: `ordered_map`, work spread over processes with results in order.
- `process_group`, `launch`: `ProcessGroup` and `run_together`, processes that work on one thing together, here or under torchrun.
- `runtime`: `run_stage` and `output_folder`, which every script in stages/ goes through.
"""
