"""The structure the design promises, read from the source: imports point one way, torch stays out of the compiler."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "neurodeploy"

BASE = ["errors", "files", "markdown", "hdf5_trial", "guarded_read", "neuron", "events"]
TRAINING = [
    *BASE,
    "extension",
    "surrogate",
    "buffers",
    "threads",
    "kernel",
    "native_layer",
    "native_filter",
    "packed_layer",
    "gpu",
    "kernels",
    "nn",
    "train",
]
COMPILER = [
    *BASE,
    "extension",
    "graph",
    "quantize",
    "mapping",
    "target",
    "device",
    "targets",
    "program_file",
    "recorded_file",
    "emulate",
    "compile_options",
    "deployment",
    "executor",
    "analog",
    "compilation",
    "fit",
    "validation",
    "conversion",
    "report",
    "deploy",
]
TORCH_AT_IMPORT = {
    "surrogate",
    "buffers",
    "threads",
    "kernel",
    "native_layer",
    "native_filter",
    "packed_layer",
    "gpu",
    "kernels",
    "nn",
    "train",
}


def sources() -> list[Path]:
    return sorted([*PACKAGE.rglob("*.py"), *(ROOT / "kernels").rglob("*.py"), *(ROOT / "targets").rglob("*.py")])


def part(path: Path) -> str:
    """The layer a file belongs to: its folder under neurodeploy/, or its own name."""
    relative = path.relative_to(PACKAGE if path.is_relative_to(PACKAGE) else ROOT)
    return relative.parts[0].removesuffix(".py")


def module_level_imports(path: Path) -> Iterator[str]:
    """Full names imported when the file is imported (not inside functions, not under TYPE_CHECKING)."""

    def visit(body: list[ast.stmt]) -> Iterator[str]:
        for node in body:
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield node.module or ""
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            elif isinstance(node, ast.If) and "TYPE_CHECKING" not in ast.dump(node.test):
                yield from visit([*node.body, *node.orelse])
            elif isinstance(node, ast.Try | ast.With | ast.ClassDef):
                yield from visit(node.body)

    yield from visit(ast.parse(path.read_text(encoding="utf-8")).body)


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    own = part(path)
    if own in ("cli", "__init__", "__main__", "native"):
        return
    chain = TRAINING if own in TRAINING and own not in BASE else COMPILER
    assert own in chain, f"{own} has no place in the order of the stages"
    allowed = set(chain[: chain.index(own) + 1])
    if path.parent.name == "graph" and path.name.startswith("torch_"):
        allowed.add("nn")  # the bridge between the compiler and torch
    if own == "train":
        # It trains on the integers that the compiler makes, and on the analog circuits that targets/analog emulates.
        allowed |= {"graph", "quantize", "mapping", "target", "targets"}
    for name in module_level_imports(path):
        match = re.match(r"neurodeploy\.(\w+)", name)
        if match and match[1] != "__version__":
            assert match[1] in allowed, f"{path.name} ({own}) imports {name}, a later stage"


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_torch_is_imported_only_by_the_training_side(path: Path) -> None:
    imported = list(module_level_imports(path))
    libraries = {"sinabs", "snntorch", "spikingjelly", "norse"}
    own = {library for library in libraries if path.name.startswith(f"{library}_")}
    optional = {*libraries, "matplotlib", "samna"} - own
    assert not optional & {name.split(".")[0] for name in imported}
    bridge = path.parent.name in ("graph", "conversion") and path.name.startswith("torch_")
    if part(path) not in TORCH_AT_IMPORT and not bridge:
        # The bridge between torch modules and graphs is loaded only inside the functions that take or give modules.
        assert not any(
            name.split(".")[0] == "torch" or re.search(r"\.(graph|conversion)\.torch_", name) for name in imported
        )


def test_no_algorithm_and_no_chip_is_named_in_the_pipeline() -> None:
    folders = [folder.name for side in ("kernels", "targets") for folder in (ROOT / side).iterdir() if folder.is_dir()]
    for path in sources():
        if part(path) in ("kernels", "targets", "cli", "nn", "train", "analog"):
            continue  # the layers and the command line name defaults; analog is the stage of one family
        for name in module_level_imports(path):
            assert not any(
                name.startswith((f"neurodeploy.kernels.{f}", f"neurodeploy.targets.{f}")) for f in folders
            ), name


def test_nothing_is_called_a_drawer() -> None:
    files = [path for side in ("neurodeploy", "kernels", "targets", "tests") for path in (ROOT / side).rglob("*")]
    drawers = [path for path in files if re.fullmatch(r"(utils?|helpers?|common|misc)(\.\w+)?", path.name)]
    assert drawers == []
