"""Run compiled kernels without a GPU: their PTX, translated to C instruction by instruction, warp by warp.

This is the code that Triton's compiler made, with its constants, addresses and order of operations, where the
interpreter runs the source. Every register is an array of 32 lanes, and products and sums round apart
(``-ffp-contract=off``). A branch has to be taken by all lanes of a warp or by none, and warps must not exchange data:
what the kernels here do. Anything else, fused operations among it, is refused.
"""

import ctypes
import re
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from itertools import product
from math import prod
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from neurodeploy.gpu.launch import Launch
from tests.gpu.ahead_of_time import build

COMPILER = shutil.which("gcc") or shutil.which("clang")

PROLOGUE = """
#include <math.h>
#include <stdint.h>
#include <string.h>
typedef uint64_t word;
typedef int8_t s8; typedef int16_t s16; typedef int32_t s32; typedef int64_t s64;
typedef uint8_t u8; typedef uint16_t u16; typedef uint32_t u32; typedef uint64_t u64;
typedef uint8_t b8; typedef uint16_t b16; typedef uint32_t b32; typedef uint64_t b64;
typedef float f32; typedef double f64; typedef uint8_t pred;
#define ACCESS(T) \\
    static inline T get_##T(word w) { T t; memcpy(&t, &w, sizeof t); return t; } \\
    static inline word put_##T(T t) { word w = 0; memcpy(&w, &t, sizeof t); return w; }
ACCESS(s8) ACCESS(s16) ACCESS(s32) ACCESS(s64) ACCESS(u8) ACCESS(u16) ACCESS(u32) ACCESS(u64)
ACCESS(b8) ACCESS(b16) ACCESS(b32) ACCESS(b64) ACCESS(f32) ACCESS(f64) ACCESS(pred)
typedef _Float16 f16;
typedef struct { uint16_t bits; } bf16;
ACCESS(f16) ACCESS(bf16)
static inline f32 from_bf16(bf16 h) { return get_f32((word)h.bits << 16); }
static inline bf16 to_bf16(f32 v) {  /* nearest, ties to even */
    word w = put_f32(v);
    bf16 h = {v != v ? 0x7fff : (uint16_t)((w + 0x7fff + (w >> 16 & 1)) >> 16)};
    return h;
}
#define LANES for (int l = 0; l < 32; ++l)
static int all_or_none(const word* p) {  /* 1, 0, or -1: some */
    int count = 0;
    LANES count += p[l] != 0;
    return count == 32 ? 1 : count == 0 ? 0 : -1;
}
int run(const word* param, int warp, int x, int y, int z, int nx, int ny, int nz) {
"""

BINARY = {"add": "+", "sub": "-", "and": "&", "or": "|", "xor": "^", "div": "/", "rem": "%"}
COMPARE = {"lt": "<", "le": "<=", "gt": ">", "ge": ">=", "eq": "==", "ne": "!="}
UNSIGNED = {"lo": "<", "ls": "<=", "hi": ">", "hs": ">="}
ROUND = {"rzi": "trunc", "rmi": "floor", "rpi": "ceil", "rni": "rint"}
DOUBLE = {"s16": "s32", "u16": "u32", "s32": "s64", "u32": "u64"}
SPECIAL = {"%tid.x": "(word)(warp * 32 + l)", "%laneid": "(word)l"}
SPECIAL |= {f"%ctaid.{axis}": f"(word){axis}" for axis in "xyz"}
SPECIAL |= {f"%nctaid.{axis}": f"(word)n{axis}" for axis in "xyz"}


def _operand(text: str) -> str:
    """A value of lane l as a 64-bit word."""
    if text in SPECIAL:
        return SPECIAL[text]
    if text.startswith("%"):
        return f"{text[1:]}[l]"
    if text.startswith(("0d", "0D")):
        return f"0x{text[2:]}ull"
    if text.startswith(("0f", "0F")):
        return f"0x{text[2:]}ull"
    return f"(word)({text}ll)"


def _get(kind: str, text: str) -> str:
    return f"get_{kind}({_operand(text)})"


def _address(text: str) -> str:
    base, _, offset = text.strip("[]").replace(" ", "").partition("+")
    return f"({_operand(base)} + {offset or 0})"


def _value(parts: list[str], operands: list[str]) -> tuple[str, str]:
    """Type and expression of what an arithmetic instruction writes."""
    name, kind = parts[0], parts[-1]
    given = operands[1:]
    if name == "mov":
        return kind, _get(kind, given[0])
    if name == "cvt":
        source, middle = parts[-1], parts[1:-2]
        kind = parts[-2]
        value = _get(source, given[0])
        if source == "bf16":
            value = f"from_bf16({value})"
        if kind == "bf16":
            return kind, f"to_bf16({value})"
        rounding = next((ROUND[m] for m in middle if m in ROUND), None)
        return kind, f"({kind}){f'{rounding}({value})' if rounding else value}"
    if name == "selp":
        return kind, f"{_operand(given[2])} ? {_get(kind, given[0])} : {_get(kind, given[1])}"
    values = [_get(kind, text) for text in given]
    if name in ("mul", "mad") and "wide" in parts:
        wide = DOUBLE[kind]
        product = f"({wide}){values[0]} * ({wide}){values[1]}"
        return wide, product + (f" + {_get(wide, given[2])}" if name == "mad" else "")
    if name in ("mul", "mad") and (kind[0] != "f" or name == "mul") and "hi" not in parts:
        return kind, f"({kind})({values[0]} * {values[1]}{f' + {values[2]}' if name == 'mad' else ''})"
    if name in BINARY and kind != "pred" and not (name == "div" and kind[0] == "f" and "rn" not in parts):
        return kind, f"({kind})({values[0]} {BINARY[name]} {values[1]})"
    if name in BINARY:
        if kind == "pred":
            return kind, f"{values[0]} {BINARY[name]} {values[1]}"
    if name == "not":
        return kind, f"!{values[0]}" if kind == "pred" else f"({kind})~{values[0]}"
    if name == "neg":
        return kind, f"({kind})-{values[0]}"
    if name == "abs":
        return kind, f"fabs({values[0]})" if kind[0] == "f" else f"{values[0]} < 0 ? -{values[0]} : {values[0]}"
    if name == "sqrt" and "rn" in parts:
        return kind, f"({kind})sqrt({values[0]})" if kind == "f64" else f"sqrtf({values[0]})"
    if name in ("min", "max"):
        if kind[0] == "f" and "NaN" not in parts:
            return kind, f"({kind})f{name}({values[0]}, {values[1]})"
        if kind[0] != "f":
            return kind, f"{values[0]} {'<' if name == 'min' else '>'} {values[1]} ? {values[0]} : {values[1]}"
    if name in ("shl", "shr"):
        bits = int(kind[1:])
        beyond = f"({values[0]} < 0 ? -1 : 0)" if kind[0] == "s" and name == "shr" else "0"
        amount = _get("u32", given[1])
        shifted = f"({kind})({values[0]} {'<<' if name == 'shl' else '>>'} {amount})"
        return kind, f"{amount} < {bits} ? {shifted} : ({kind}){beyond}"
    if name == "bfe":  # bits from a place on, with their sign
        first, count, bits = _get("u32", given[1]), _get("u32", given[2]), int(kind[1:])
        left = f"{bits} - {first} - {count}"
        return kind, f"{count} ? ({kind})((({kind})((u{bits}){values[0]} << ({left}))) >> ({bits} - {count})) : 0"
    if name == "copysign":
        return kind, f"copysign({values[1]}, {values[0]})"
    raise NotImplementedError(f"{'.'.join(parts)} {', '.join(operands)}")


def _compare(parts: list[str], operands: list[str]) -> str:
    kind, how = parts[-1], parts[1]
    a, b = _get(kind, operands[1]), _get(kind, operands[2])
    if how in ("num", "nan"):
        number = f"({a} == {a} && {b} == {b})"
        found = number if how == "num" else f"!{number}"
    elif how in UNSIGNED:
        found = f"({a} {UNSIGNED[how]} {b})"
    elif kind[0] == "f" and how.endswith("u"):
        found = f"(isunordered({a}, {b}) || {a} {COMPARE[how[:-1]]} {b})"
    elif kind[0] == "f" and how == "ne":
        found = f"(!isunordered({a}, {b}) && {a} != {b})"
    else:
        found = f"({a} {COMPARE[how]} {b})"
    if len(parts) == 4:
        joint = {"and": "&", "or": "|", "xor": "^"}[parts[2]]
        negated = operands[3].startswith("!")
        found = f"{found} {joint} {'!' if negated else ''}{_operand(operands[3].lstrip('!'))}"
    return found


def _instruction(guard: str, parts: list[str], operands: list[str]) -> str:
    name, kind = parts[0], parts[-1]
    lanes = f"LANES {f'if ({guard}) ' if guard else ''}"
    if name == "bra":
        target = operands[0].replace("$", "_")
        if not guard:
            return f"goto {target};"
        every = re.sub(r"^(!?)(\w+)\[l\]$", r"\2", guard)
        wanted = "0" if guard.startswith("!") else "1"
        return f"{{ int some = all_or_none({every}); if (some < 0) return 2; if (some == {wanted}) goto {target}; }}"
    if name == "ret":
        return "return 0;" if not guard else f"if (all_or_none({guard.split('[')[0]})) return 0;"
    if name == "mov" and "{" in "".join(operands):  # halves of a register
        half = int(kind[1:]) // 2
        unpacks = operands[0].startswith("{")
        halves = [r for r in re.split(r"[{}, ]+", operands[0] if unpacks else operands[1]) if r]
        if unpacks:
            whole = _get(kind, operands[1])
            moves = (f"{r[1:]}[l] = (u{half})({whole} >> {k * half});" for k, r in enumerate(halves) if r != "_")
            return f"{lanes}{{ {' '.join(moves)} }}"
        low, high = (_get(f"u{half}", r) for r in halves)
        return f"{lanes}{operands[0][1:]}[l] = (word){low} | (word){high} << {half};"
    if name == "ld" and "param" in parts:
        index = re.search(r"_param_(\d+)", operands[1])
        assert index is not None
        return f"{lanes}{operands[0][1:]}[l] = put_{kind}(get_{kind}(param[{index[1]}]));"
    if name in ("ld", "st") and "global" in parts:
        memory = operands[1] if name == "ld" else operands[0]
        registers = (operands[0] if name == "ld" else operands[1]).strip("{ }").replace(" ", "").split(",")
        size = f"sizeof({kind})"
        if name == "ld":
            moves = (
                f"{{ {kind} t; memcpy(&t, (char*)at + {k} * {size}, {size}); {r[1:]}[l] = put_{kind}(t); }}"
                for k, r in enumerate(registers)
            )
        else:
            moves = (
                f"{{ {kind} t = {_get(kind, r)}; memcpy((char*)at + {k} * {size}, &t, {size}); }}"
                for k, r in enumerate(registers)
            )
        return f"{lanes}{{ word at = {_address(memory)}; {' '.join(moves)} }}"
    if name == "shfl":
        target = operands[0].partition("|")[0]
        lane = {"bfly": "l ^ ", "idx": "0 * l + "}[parts[2]] + _get("s32", operands[2])
        return f"{{ word t[32]; memcpy(t, {operands[1][1:]}, sizeof t); LANES {target[1:]}[l] = t[({lane}) & 31]; }}"
    if name == "redux":
        better = {"max": ">", "min": "<"}[parts[2]]
        first = operands[1][1:]
        return (
            f"{{ {kind} t = get_{kind}({first}[0]); LANES if (get_{kind}({first}[l]) {better} t) "
            f"t = get_{kind}({first}[l]); LANES {operands[0][1:]}[l] = put_{kind}(t); }}"
        )
    if name == "setp":
        return f"{lanes}{operands[0][1:]}[l] = {_compare(parts, operands)};"
    kind, value = _value(parts, operands)
    return f"{lanes}{operands[0][1:]}[l] = put_{kind}({value});"


def translate(ptx: str) -> str:
    """The C source of one kernel's warp."""
    body = ptx[ptx.index("\n{") + 2 :].split("\n}")[0]
    body = re.sub(r"//[^\n]*", "", body)
    registers: list[str] = []
    lines: list[str] = []
    for statement in re.split(r"[;\n]", re.sub(r"(?m)^(\s*[$\w]+:)", r"\1;", body)):
        text = statement.strip()
        if text.startswith(".reg"):
            found = re.match(r"\.reg \.\w+\s+%(\w+)<(\d+)>", text)
            assert found is not None, text
            registers += [f"{found[1]}{k}[32]" for k in range(int(found[2]))]
        elif text.endswith(":"):
            lines.append(f"{text.replace('$', '_')} ;")
        elif text and not text.startswith("."):
            match = re.match(r"(?:@(!?)%(\w+)\s+)?([\w.:]+)\s*(.*)$", text)
            assert match is not None, text
            guard = f"{match[1]}{match[2]}[l]" if match[2] else ""
            operands = [o.strip() for o in re.split(r",(?![^{]*\})", match[4])] if match[4] else []
            lines.append(_instruction(guard, [p for p in match[3].split(".") if p], operands))
    declared = "".join(f"static _Thread_local word {register};\n" for register in registers)
    return PROLOGUE.replace("int run(", declared + "int run(") + "\n".join(lines) + "\nreturn 0;\n}\n"


@cache
def _library(source: str) -> Any:
    assert COMPILER is not None
    options = ["-O0", "-w", "-fwrapv", "-ffp-contract=off", "-fno-strict-aliasing", "-shared", "-fPIC"]
    with TemporaryDirectory() as folder:
        code, library = Path(folder) / "kernel.c", Path(folder) / "kernel.so"
        code.write_text(source)
        subprocess.run([COMPILER, *options, "-o", library, code, "-lm"], check=True)
        return ctypes.CDLL(str(library))


def run_compiled(
    kernel: Any,
    grid: tuple[int, ...],
    arguments: Sequence[Any],
    warps: int,
    *,
    architecture: int = 90,
    **constants: Any,
) -> None:
    """In the place of ``launch.run``, for tensors on the CPU."""
    if prod(grid) == 0:
        return
    launch = Launch(kernel, grid, tuple(arguments), constants, warps)
    program = _library(translate(build(launch, architecture).ptx)).run
    given = [value for value in arguments if value is not None and (isinstance(value, torch.Tensor) or value != 1)]
    words = [value.data_ptr() if isinstance(value, torch.Tensor) else value for value in given]
    parameters = (ctypes.c_uint64 * (len(words) + 2))(*(word % 2**64 for word in words))
    sizes = (*grid, 1, 1)[:3]
    for place in product(*map(range, sizes), range(warps)):
        assert program(parameters, place[3], *place[:3], *sizes) == 0, "lanes of a warp go different ways"
