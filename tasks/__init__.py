"""Prefect tasks of a few lines: read handles, call the domain, return handles."""
