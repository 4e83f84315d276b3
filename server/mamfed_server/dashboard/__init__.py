"""The coordinator's page in a browser: a process of its own that reads the home."""
