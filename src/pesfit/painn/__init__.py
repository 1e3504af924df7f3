"""PaiNN networks, conservative or direct: the potential, its uncertainty, and in `train` its training.

Read in this order:

- `network`: schnetpack's layers and weights, evaluated over pairs of atoms.
- `potential`: atomrefs, units and forces around the network (`PaiNNPotential`), `build_painn`, `load_painn`.
- `last_layer`: the last layer as linear regression, whose posterior gives standard deviations (`LastLayerPosterior`).
- `model`: trained networks opened to be used (`open_network`), and ensembles of them (`open_ensemble`).
- `train`: `train.train_network` is the whole of stage 07.
"""
