"""Benchmarks by topic. Run one from the repository root: ``python -m benchmarks.ROOM.NAME``."""
