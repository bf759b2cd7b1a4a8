"""Numbered migrations, applied in order, one transaction each. Append only: a released file never changes."""
