"""The emulators' tests, their C++ built under AddressSanitizer and UndefinedBehaviorSanitizer: ``make sanitize``.

Only the emulators' C++ is built, apart from the package's own build, into ``build/sanitize``. The sanitizers must be in
the process before Python is, so this program starts itself again with their library preloaded. Any finding ends it with
their report and an exit code that is not 0. Leaks are not looked for: the interpreter keeps memory of its own.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODULE = ROOT / "build" / "sanitize" / "_ext.so"
TESTS = (
    "tests/targets/test_emulator.py",
    "tests/targets/test_loops.py",
    "tests/targets/test_inputs.py",
    "tests/emulate/test_limits.py",
    "tests/targets/analog/test_core.py",
    "tests/targets/analog/test_philox.py",
    "tests/targets/analog/test_virtual_chip.py",
    "tests/targets/analog/test_calibration.py",
    "tests/targets/analog/test_stepped.py",
)
#: Left out: tests of size, which take minutes under the sanitizers, those that start a process of their own, and those
#: that compare with the kernels, which are not built here.
LEFT_OUT = "not large_cores and not dense_cores and not multiplies and not ctrl_c and not trained_with"


def compiler() -> str:
    found = shutil.which(os.environ.get("CXX", "g++"))
    if found is None:
        sys.exit("make sanitize needs g++ with its sanitizers.")
    return found


def build() -> None:
    import nanobind

    MODULE.parent.mkdir(parents=True, exist_ok=True)
    source = Path(nanobind.source_dir())
    native = ROOT / "neurodeploy" / "native"
    robin_map = source.parent / "ext" / "robin_map" / "include"
    command = [compiler(), "-std=c++17", "-shared", "-fPIC", "-O1", "-g", "-fvisibility=hidden"]
    command += ["-ffp-contract=off", "-fno-omit-frame-pointer"]
    command += ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
    command += [f"-I{path}" for path in (sysconfig.get_path("include"), nanobind.include_dir(), robin_map, native)]
    targets = sorted((ROOT / "targets").glob("*/*.cpp"))
    sources = [native / "module.cpp", *targets, source / "nb_combined.cpp"]
    subprocess.run([*command, *map(str, sources), "-o", str(MODULE)], check=True)


def run() -> int:
    # libstdc++ as well: the sanitizer looks for its functions when it starts.
    libraries = [
        subprocess.run([compiler(), f"-print-file-name={name}"], check=True, capture_output=True, text=True).stdout
        for name in ("libasan.so", "libstdc++.so")
    ]
    environment = {
        **os.environ,
        "LD_PRELOAD": " ".join(path.strip() for path in libraries),
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=0:exitcode=99",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1:exitcode=99",
        "PYTHONMALLOC": "malloc",  # so that an array's end is known to the sanitizer
    }
    return subprocess.run([sys.executable, __file__, "--inside"], env=environment, cwd=ROOT).returncode


def inside() -> int:
    import pytest

    import neurodeploy

    spec = importlib.util.spec_from_file_location("neurodeploy._ext", MODULE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules["neurodeploy._ext"] = module
    neurodeploy._ext = module
    return pytest.main(["-q", "-p", "no:cacheprovider", "--capture=sys", "-k", LEFT_OUT, *TESTS])


if __name__ == "__main__":
    if "--inside" in sys.argv[1:]:
        sys.path.insert(0, str(ROOT))
        sys.exit(inside())
    build()
    sys.exit(run())
