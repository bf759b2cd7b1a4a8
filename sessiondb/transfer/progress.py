"""How a long import or export reports its progress."""

from collections.abc import Callable

Progress = Callable[[int, int, int, int, str], None]
"""Called on the event loop: files done, files in all, bytes done, bytes in all, current file."""
