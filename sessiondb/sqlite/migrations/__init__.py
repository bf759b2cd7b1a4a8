"""Numbered migrations, applied in order, one transaction each. A released file never changes."""
