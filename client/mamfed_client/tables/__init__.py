"""CSV tables as hospitals write them -> typed fields."""
