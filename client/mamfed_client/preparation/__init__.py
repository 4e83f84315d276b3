"""A folder of mammograms -> training samples, patients in parts, and one account of every file."""
