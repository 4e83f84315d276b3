"""What a hospital runs: intake of its mammograms, and the Flower ClientApp."""
