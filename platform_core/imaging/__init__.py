"""Volumes in memory and on disk. How a scanner writes them is not known here."""
