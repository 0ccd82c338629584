"""A program that reads HDF5 files to the end for ``guarded_read``, and may crash, hang or run out of memory doing so.

Each line of standard input is the path of a file as JSON; the answer is a line of JSON, null or what is wrong. Only
h5py is imported, so that it starts fast.
"""

import json
import math
import sys
from typing import Any

import h5py

_MEMORY_BYTES = 4 << 30
_MOST_ENTRIES = 1_000_000
_DEEPEST = 64
#: Deflate reaches 1032:1. A file that claims more is damaged, but for the little that small files may hold.
_MAX_RATIO, _ALLOWANCE = 2_000, 1 << 24
#: Data read per file; of larger recordings the structure and this much are tried.
_READ_BYTES = 256 << 20
_BLOCK_BYTES = 16 << 20


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # not on every system
        return
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    limit = _MEMORY_BYTES if hard == resource.RLIM_INFINITY else min(_MEMORY_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _try(path: str) -> str | None:
    with open(path, "rb") as file:
        size = file.seek(0, 2)
    with h5py.File(path, "r") as source:
        waiting: list[tuple[Any, int]] = [(source, 0)]
        entries, claimed, left = 0, 0, _READ_BYTES
        while waiting:
            item, depth = waiting.pop()
            entries += 1
            if entries > _MOST_ENTRIES or depth > _DEEPEST:
                return f"more than {_MOST_ENTRIES} entries, or groups nested more than {_DEEPEST} deep"
            for name in list(item.attrs):
                item.attrs[name]
            if isinstance(item, h5py.Group):
                links = [(name, item.get(name, getlink=True)) for name in item]
                if any(isinstance(link, h5py.ExternalLink) for _, link in links):
                    return "a link to another file"
                waiting += [(item[name], depth + 1) for name, link in links if isinstance(link, h5py.HardLink)]
            elif isinstance(item, h5py.Dataset):
                if item.is_virtual or item.external:
                    return f"{item.name} lies in other files"
                claimed += item.nbytes
                chunk = math.prod(item.chunks or (0,)) * item.dtype.itemsize
                if max(claimed, chunk) > _MAX_RATIO * size + _ALLOWANCE:
                    return f"{item.name} claims {item.nbytes} bytes, in a file of {size} bytes"
                left -= _read(item, left)
    return None


def _read(data: Any, most: int) -> int:
    """Read up to ``most`` bytes of a data set in blocks; returns how many."""
    if data.shape is None:
        return 0
    if not data.shape or data.nbytes <= _BLOCK_BYTES:
        data[()]
        return int(data.nbytes)
    rows = max(1, _BLOCK_BYTES * data.shape[0] // data.nbytes)
    done = 0
    for first in range(0, data.shape[0], rows):
        if done >= most:
            break
        data[first : first + rows]
        done += rows * data.nbytes // data.shape[0]
    return done


if __name__ == "__main__":
    _limit_memory()
    for line in sys.stdin:
        try:
            answer = _try(json.loads(line))
        except MemoryError:
            answer = f"it takes more than {_MEMORY_BYTES >> 30} GiB to read"
        except Exception as error:  # h5py raises many kinds; a caller that meets one gives it a place and a remedy
            answer = str(error)[:200] or type(error).__name__
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
