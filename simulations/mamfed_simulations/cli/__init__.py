"""The commands of ``mamfed-simulate``."""
