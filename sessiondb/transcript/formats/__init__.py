"""Message formats: what the rules of a transcript must know of an item, for each format.

A module for each format, and `base.py` with what all of them say.
"""

from __future__ import annotations

from .base import CallId, Format
from .pi import PI

__all__ = ["PI", "CallId", "Format"]
