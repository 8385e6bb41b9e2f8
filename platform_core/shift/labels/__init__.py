"""What labels, calls and scores say of the share of positives, and of what a positive is."""
