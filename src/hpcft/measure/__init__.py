"""What a run cost and what its model is worth: FLOPs, memory, scores. Measured or counted, never guessed."""
