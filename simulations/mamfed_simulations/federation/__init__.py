"""A federation on one machine: its engines, its arms, and the experiment around them."""
