"""Turn a folder of mammograms into training samples, split by patient, accounting for each file."""
