"""What a run leaves on disk: plan, events, rounds and checkpoints."""
