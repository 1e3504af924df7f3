"""Molecular dynamics with any potential, and the rollouts of stage 08.

`loop.Simulation` advances `replicas.Replicas` of many molecules as one graph by the integrators of `potentials.integrators`;
`loop.simulate` collects `loop.Trajectories`, of which `measures.measure` takes stability, drift, temperature, distances and errors
(`observables`). `pesfit md` uses the same loop with one replica.

To read stage 08, begin with `rollout.run_rollouts`: `molecules.find_molecules` gives the molecules and where they start, worker
processes share the simulations, and `probes.write_probes` makes conformers outside of the training domain. The names and tables of the
output files are in `data.rollouts`.
"""
