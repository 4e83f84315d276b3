"""``mamfed-client evaluate``: how a checkpoint scores on a folder of mammograms."""
