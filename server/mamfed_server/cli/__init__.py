"""The commands of ``mamfed-server``."""
