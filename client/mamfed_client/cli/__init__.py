"""The commands of ``mamfed-client``."""
