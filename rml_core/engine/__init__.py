"""What a rank does: steps, epochs, evaluation, its logs and its state."""
