"""Scripts that train, score and time what the README claims."""
