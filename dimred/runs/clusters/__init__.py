"""The runs of a sweep as jobs of a cluster: hydra/launcher=slurm and hydra/launcher=ray."""
