"""All routes: importing a module of them puts its rows into the table."""

from __future__ import annotations

from . import health, queue, sessions
from .table import TABLE

__all__ = ["TABLE", "health", "queue", "sessions"]
