"""How far a site has moved, which kind of shift it is, and what it means for the model."""
