"""Training and inference of one site, without federation."""
