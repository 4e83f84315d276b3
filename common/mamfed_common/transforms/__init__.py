"""The training sample, its augmentation and its corruption."""
