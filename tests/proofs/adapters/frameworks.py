"""The releases that the adapters are judged with: the one place of their versions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final


@dataclass(frozen=True)
class Framework:
    """A framework, and which of its tests are run."""

    name: str
    """The extra of sessiondb."""
    package: str
    version: str
    plugins: tuple[str, ...]
    """Modules of `plugins/` that put the adapter into the place of the framework's own store."""
    tests: tuple[str, ...]
    """Files of the source distribution, or of `plugins/` if it ships none. Or of `repository`."""
    needs: tuple[str, ...] = field(default=())
    """What these tests import."""
    left_out: tuple[str, ...] = ()
    """Tests that are not run, because whether they pass is a matter of luck."""
    has_own_store: bool = False
    """Whether it has a store of its own on disk, beside which `--bench` measures."""
    repository: str = ""
    """Where its tests are if its source distribution has none. Fetched by git."""
    commit: str = ""
    """Which of the repository's commits. Its package is taken from there, too."""

    @property
    def requirement(self) -> str:
        """The release, as pip wants it."""
        return f"{self.package}=={self.version}"


PYTEST: Final = "pytest==9.2.0"
FRAMEWORKS: Final = (
    Framework(
        "openai-agents",
        "openai-agents",
        "0.24.0",
        ("openai_agents_store",),
        (
            "tests/memory/test_session.py",
            "tests/memory/test_session_limit.py",
            "tests/memory/test_compaction_suffix.py",
            "tests/memory/test_compaction_model_visibility.py",
            "tests/memory/test_openai_responses_compaction_session.py",
            "tests/extensions/memory/test_encrypt_session.py",
        ),
        (
            "aiosqlite==0.22.1",
            "cryptography>=45,<51",
            "inline-snapshot",
            "pytest-asyncio==1.5.0",
            "pytest-mock",
            "sqlalchemy[asyncio]>=2",
        ),
        has_own_store=True,
    ),
    Framework(
        "claude-agent-sdk",
        "claude-agent-sdk",
        "0.2.189",
        ("claude_agent_sdk_store",),
        (
            # The SDK ships its conformance suite in its package, as a function that a test calls.
            "claude_agent_sdk_conformance.py",
            "tests/test_session_store_conformance.py",
            "tests/test_session_helpers_store.py",
            "tests/test_session_summary.py",
            "tests/test_session_import.py",
            "tests/test_session_resume.py",
        ),
        ("trio",),
        # They assert what has happened after some turns of the event loop, or in 50 ms. That is
        # the speed of a store in memory, and a matter of luck for one that asks another thread.
        left_out=(
            "tests/test_session_helpers_store.py::TestListSessionsFromStore::test_load_concurrency_is_bounded",
            "tests/test_session_summary.py::TestListSessionsFromStoreFastPath::test_gap_fill_bounded_concurrency",
            "tests/test_session_resume.py::TestTimeoutsAndErrors::test_list_subkeys_timeout_raises_and_cleans_temp_dir",
            "tests/test_session_resume.py::TestTimeoutsAndErrors::test_cancelled_after_mkdtemp_cleans_temp_dir",
        ),
    ),
    # These ship no tests: what runs are this project's own, beside the framework's own stores.
    Framework("pydantic-ai", "pydantic-ai-slim", "2.68.0", (), ()),
    Framework(
        "google-adk", "google-adk", "2.13.0", (), (), ("aiosqlite==0.22.1",), has_own_store=True
    ),
    Framework("agent-framework", "agent-framework-core", "1.23.0", (), ()),
    Framework(
        "nanobot",
        "nanobot-ai",
        "0.3.5",
        ("nanobot_store",),
        (
            "tests/session/test_consolidated_offset_clamp.py",
            "tests/session/test_goal_state.py",
            "tests/session/test_session_cache.py",
            "tests/session/test_session_fsync.py",
            "tests/session/test_session_handles.py",
            "tests/session/test_session_list_repair_legacy.py",
            "tests/session/test_session_location.py",
            "tests/session/test_session_messages.py",
            "tests/session/test_session_store.py",
            "tests/session/test_turn_continuation.py",
            "tests/agent/test_consolidate_offset.py",
            "tests/agent/test_consolidator.py",
            "tests/agent/test_session_atomic.py",
            "tests/agent/test_session_collision.py",
            "tests/agent/test_session_delete.py",
            "tests/agent/test_session_inputs.py",
            "tests/agent/test_session_manager_history.py",
            "tests/agent/test_session_model_runtime.py",
            "tests/agent/test_session_retention.py",
            "tests/agent/test_unified_session.py",
            "tests/agent/tools/test_sessions.py",
            "tests/tools/test_session_messages_tool.py",
        ),
        ("pytest-asyncio>=1.3,<2", "aiohttp>=3.9,<4"),
        has_own_store=True,
        repository="https://github.com/HKUDS/nanobot",
        # Of 2026-08-22, between 0.3.0, which has no `SessionStore` yet, and the release above.
        commit="3852956a71a907e0db546e5cde05ffd5b8097671",
    ),
)
