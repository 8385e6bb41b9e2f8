"""What happens in which order. No arithmetic, no I/O."""
