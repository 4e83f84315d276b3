"""A site's computations as jobs on other machines: Slurm's, or whatever a command starts."""
