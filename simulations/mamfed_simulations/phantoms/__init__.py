"""Synthetic mammograms: anatomy, lesions, vendors, and the files that go wrong."""
