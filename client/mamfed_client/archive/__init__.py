"""The hospital's image archive (PACS): images pulled from it, and results sent to it."""
