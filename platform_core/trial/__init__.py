"""What would happen if: each change is tried, measured and then served or refused."""
