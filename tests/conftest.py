"""Fixtures of several folders."""

import pytest


@pytest.fixture
def threads_for_little_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passes over small arrays take several threads, too."""
    monkeypatch.setattr("neurodeploy.threads.LEAST_WORK", 1)
