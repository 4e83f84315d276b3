"""A run's curves for TensorBoard and MLflow; a failure here is one line and never touches a run."""
