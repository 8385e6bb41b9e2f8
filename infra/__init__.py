"""Deployment: empty until the platform runs by itself."""
