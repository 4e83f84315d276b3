"""Both training stages on one machine, without any federation."""
