"""What the tests of all adapters ask of their programs in examples/adapters."""

from __future__ import annotations

import runpy
import sys

import pytest

from tests import ROOT


class Program:
    """Runs the program of an adapter, with a summary that takes a tenth of a second."""

    def __init__(
        self, name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.syspath_prepend(str(ROOT))
        monkeypatch.setattr(sys, "argv", ["", "0.1"])
        runpy.run_module(f"examples.adapters.{name}", run_name="__main__")
        first, self.second, self.third = capsys.readouterr().out.splitlines()
        self.answered = int(first.rpartition(" ")[2])
        """Turns that were answered while the summary was written."""
        assert self.answered >= 3

    def has_all_in_its_context(self) -> None:
        """Check that the context has the summary, and all of what was said meanwhile."""
        kept = f"of their questions in the context behind it: {self.answered}"
        assert self.second == kept
        assert "A summary of" in self.third
