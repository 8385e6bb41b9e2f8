"""Objects and Delta tables, local or on S3. What the bytes mean is not known here."""
