"""What is computed from stored features."""
