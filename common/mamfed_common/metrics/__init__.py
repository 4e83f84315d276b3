"""How good a malignancy map is, how certain that is, and how it is reported."""
