"""All routes: importing a module of them puts its rows into the table."""

from __future__ import annotations

from . import compactions, health, queue, sessions, watching
from .table import TABLE

__all__ = ["TABLE", "compactions", "health", "queue", "sessions", "watching"]
