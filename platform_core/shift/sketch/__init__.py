"""Sketches: what a site, stratum and day come to, added up and compared without a scan."""
