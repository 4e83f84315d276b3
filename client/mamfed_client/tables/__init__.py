"""Read CSV tables as hospitals write them, and parse their cells into typed fields."""
