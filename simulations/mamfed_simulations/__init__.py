"""A multi-vendor federation on one machine: phantoms, the run, its comparison and its report."""
