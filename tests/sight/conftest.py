"""Prints the tables that the tests have filled."""

import pytest

from tests.sight.tables import TABLES


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for table in TABLES:
        if table.cells:
            terminalreporter.section(f"seen: {table.name}, as in {table.page.name}")
            terminalreporter.write_line(table.text())
