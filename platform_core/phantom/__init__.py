"""The digital phantom: patients with known truth, as three vendors' scanners would send them."""
