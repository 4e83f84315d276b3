"""Decoding in a separate, confined process: a hostile file can crash only that process."""
