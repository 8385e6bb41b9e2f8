"""What scanners write: headers, grouping, geometry and pixels. Identity is read here and ends at the door."""
