"""Tasks, messages and versions: what coordinator and sites exchange."""
