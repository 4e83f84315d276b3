"""What the coordinator runs: the two-stage round loop and its run folder; never an image."""
