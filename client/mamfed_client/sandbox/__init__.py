"""Decode files in a separate, confined process, so that a hostile file can crash only that one."""
