"""Read image files, accept only screening mammograms, and prepare samples from them."""
