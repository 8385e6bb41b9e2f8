"""The manifest: what came, what became of it, and the tables that say so."""
