"""Image files -> mammograms in memory: what an image is, which ones qualify, and its geometry."""
