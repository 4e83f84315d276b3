"""Files, locks, processes, text and settings: nothing specific to mammograms."""
