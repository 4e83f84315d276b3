"""The long-running coordinator process, its supervisor and its status."""
