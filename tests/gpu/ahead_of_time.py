"""Compile recorded kernel launches for GPUs that need not be there, as Triton would at the first launch."""

import re
import subprocess
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any, NamedTuple

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from neurodeploy.gpu.launch import Launch

TYPES = {
    torch.float32: "*fp32",
    torch.float64: "*fp64",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.int32: "*i32",
    torch.int64: "*i64",
    torch.uint8: "*u8",
    torch.int8: "*i8",
}


class Compiled(NamedTuple):
    """One kernel for one architecture.

    Attributes:
        ptx: the kernel's text.
        registers: of one thread.
        spilled_bytes: of one thread, in local memory.
        cubin: the assembled kernel.
    """

    ptx: str
    registers: int
    spilled_bytes: int
    cubin: bytes

    def machine_code(self) -> str:
        """The instructions that the device executes."""
        return _inspect("nvdisasm", self.cubin, "-c")

    def count(self, pattern: str) -> int:
        """How many instructions match a regular expression."""
        return len(re.findall(rf"^\s*(?:@!?%p\d+ )?(?:{pattern})", self.ptx, re.MULTILINE))


def build(launch: Launch, architecture: int) -> Compiled:
    """Compile a launch for compute capability ``architecture`` (80: A100, 90: H100)."""
    signature: dict[str, str] = {}
    constants: dict[str, Any] = {}
    attributes: dict[tuple[int, ...], list[list[Any]]] = {}
    values = dict(zip(launch.kernel.arg_names, launch.arguments, strict=False)) | launch.constants
    options = {name: value for name, value in launch.constants.items() if name not in launch.kernel.arg_names}
    for position, name in enumerate(launch.kernel.arg_names):
        value = values[name]
        if isinstance(value, torch.Tensor):
            signature[name] = TYPES[value.dtype]
            attributes[(position,)] = [["tt.divisibility", 16]]  # torch aligns what it allocates to more than that
        elif name in launch.constants or value is None or value == 1:
            signature[name] = "constexpr"
            constants[name] = value
        else:
            signature[name] = "i32" if -(2**31) <= value < 2**31 else "i64"
            if value % 16 == 0:
                attributes[(position,)] = [["tt.divisibility", 16]]
    compiled = triton.compile(
        ASTSource(launch.kernel, signature, constants, attributes),
        target=GPUTarget("cuda", architecture, 32),
        options={"num_warps": launch.warps, "enable_fp_fusion": False, **options},
    )
    cubin = compiled.asm["cubin"]
    usage = _inspect("cuobjdump", cubin, "-res-usage")
    found = re.search(r"REG:(\d+) STACK:(\d+) .*?LOCAL:(\d+)", usage)
    assert found is not None, usage
    return Compiled(compiled.asm["ptx"], int(found[1]), int(found[2]) + int(found[3]), cubin)


def _inspect(tool: str, cubin: bytes, option: str) -> str:
    """What one of the tools that come with triton says about a kernel."""
    with NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        path = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / tool
        return subprocess.run([path, option, file.name], capture_output=True, text=True, check=True).stdout
