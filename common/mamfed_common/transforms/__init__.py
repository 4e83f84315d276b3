"""One training sample, and what augmentation and corruption make of it."""
