"""Where the kernels of these checks run: in Triton's interpreter, or with NEURODEPLOY_RUN_PTX=1 as compiled."""

import os

import pytest


@pytest.fixture(autouse=True)
def runner(monkeypatch: pytest.MonkeyPatch) -> None:
    if os.environ.get("NEURODEPLOY_RUN_PTX"):
        from neurodeploy.gpu import launch
        from tests.gpu.ptx_on_cpu import run_compiled

        monkeypatch.setattr(launch, "run", run_compiled)
