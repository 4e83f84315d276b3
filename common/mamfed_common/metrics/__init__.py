"""Scores of malignancy maps, their uncertainty and how they are reported."""
