"""One training run: its sites, its rounds, and how it resumes after a crash."""
