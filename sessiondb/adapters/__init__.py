"""Session stores of agent frameworks, on sessiondb.

One module a framework, with the framework's own names. Each builds on what `sessiondb` exports
and on the framework. It is imported by name, because the framework is installed by its user:
`pip install 'sessiondb[openai-agents]'`, then `from sessiondb.adapters.openai_agents import ...`.
`import sessiondb` imports none of them.

What an adapter promises is what its framework's interface promises, and in each of them: a call
that returned is on disk, and no append waits for a compaction.
"""

from __future__ import annotations

from types import TracebackType

__all__ = ["Needs"]


class Needs:
    """A block of imports of a framework. Without it the error says what to install."""

    def __init__(self, extra: str) -> None:
        self._extra = extra

    def __enter__(self) -> None:
        """Begin the imports."""

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Say which extra brings a package that is missing."""
        if isinstance(exc, ModuleNotFoundError):
            raise ModuleNotFoundError(
                f"no module {exc.name}: this adapter needs its framework. "
                f"Run `pip install 'sessiondb[{self._extra}]'`",
                name=exc.name,
                path=exc.path,
            ) from exc
