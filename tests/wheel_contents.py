"""Check what a built wheel holds: one top-level name, the chips' data, the compiled module, no sources or tests."""

import sys
import zipfile
from pathlib import PurePosixPath

WANTED = ("neurodeploy/py.typed", "neurodeploy/targets/speck2f/chip.yaml", "neurodeploy/kernels/exodus/reference.py")
UNWANTED = (".cpp", ".hpp", "CMakeLists.txt")


def problems(names: list[str]) -> list[str]:
    """What is wrong with a wheel that holds these files."""
    packages = {PurePosixPath(name).parts[0] for name in names}
    packages = {name for name in packages if not name.endswith(".dist-info")}
    found = (
        [] if packages == {"neurodeploy"} else [f"top-level names are {sorted(packages)}, expected only neurodeploy"]
    )
    found += [f"{name} is missing" for name in WANTED if name not in names]
    if not any(name.startswith("neurodeploy/_ext.") for name in names):
        found.append("the compiled module neurodeploy/_ext is missing")
    found += [f"{name} does not belong in a wheel" for name in names if name.endswith(UNWANTED)]
    found += [f"{name} is listed twice" for name in sorted(set(names)) if names.count(name) > 1]
    return found


def main() -> int:
    """Print the problems of the wheel named on the command line; exit code 1 if there are any."""
    with zipfile.ZipFile(sys.argv[1]) as wheel:
        found = problems(wheel.namelist())
    for problem in found:
        print(problem)
    print(f"{sys.argv[1]}: {'refused' if found else 'ok'}")
    return bool(found)


if __name__ == "__main__":
    raise SystemExit(main())
