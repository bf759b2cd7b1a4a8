"""Cases of queries/history.sql."""

from __future__ import annotations

from tests.support.statement_cases import Page

PAGES: list[Page] = []
