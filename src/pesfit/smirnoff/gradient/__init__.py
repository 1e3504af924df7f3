"""The gradient fit, for objectives that are not quadratic: robust losses, van der Waals parameters and charges.

Call tree, in the order to read:

- `run`: `fit_by_gradient` starts from the exact fit or the force field, and ends with the parameters of the lowest validation loss.
- `epochs`: validation, early stopping, checkpoints, and the log of each epoch.
- `optimizers`: optimizers with bounds, each of which can continue from a stored state.
- `shards`: `ShardWork`, value and derivatives of a shard; `Team`, shards of a batch evaluated by one process or several.
- `objective`: residuals of energies and forces, and the loss over them (`ResidualBlock`, `LossFunction`).
- `coefficients`: from trained parameters to the coefficients in which energies and forces are linear.
- `preparation`: features of molecules at their fixed geometries, computed once.
"""
