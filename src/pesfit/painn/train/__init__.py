"""Training of PaiNN networks: stage 07.

Read in this order:

- `train_network`: the whole of the stage in all processes, from data sets to files and metrics; atomrefs.
- `datasets`: the conformers of a split as flat tensors (`TrainingData`), gathered into a `LabeledGraph`.
- `step`: minibatches, their shards, and loss and gradient of a shard (`GradientStep`); `compiled` compiles it.
- `optimizer`: weights as one vector, learning rate schedule, moving average, early stopping.
- `loop`: epochs, validation and checkpoints (`TrainingRun`); `tracking` shows its progress.
- `evaluate`: residuals, errors and loss of a split; `fit_last_layer`: the posterior of the last layer; `results`: files and metrics.
"""
