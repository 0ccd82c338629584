"""One stored NIR node while it is read: its fields, checked one by one, and what was decided about them."""

from typing import Any

import numpy as np

from neurodeploy.errors import GraphError
from neurodeploy.graph.fidelity import Remark, Status
from neurodeploy.graph.nir_file import Fields
from neurodeploy.graph.nodes import Array, Pair, Shape

_AGAIN = "write the file again with nir.write of nir >= 1.0.8."


class StoredNode:
    """A node of a NIR file; collects the remarks of its fidelity.

    Attributes:
        name, kind: as stored.
        fields: as stored.
        dtypes: types other than float32 that fields are to have, by name (from metadata).
    """

    def __init__(self, name: str, fields: Fields, dtypes: dict[str, str] | None = None) -> None:
        self.name = name
        self.kind = str(fields["type"])
        self.fields = fields
        self.dtypes = dtypes or {}
        self.remarks: list[Remark] = []

    def error(self, rule: str, remedy: str, code: str) -> GraphError:
        """The error for a field that cannot be taken; the reader puts the file's path in front."""
        return GraphError(f"node {self.name}: {rule}", remedy=remedy, code=code)

    def remark(self, status: Status, text: str, bound: float | None = None, bounded: str = "") -> None:
        """Record what was decided."""
        self.remarks.append(Remark(status, text, bound, bounded))

    def has(self, key: str) -> bool:
        """Whether the field is stored."""
        return key in self.fields

    def stored(self, key: str) -> Any:
        """A field that must be there.

        Raises:
            GraphError: it is missing.
        """
        if key not in self.fields:
            raise self.error(f"the field {key} of its type {self.kind} is missing.", _AGAIN, "malformed-file")
        return self.fields[key]

    def numbers(self, key: str, ndim: int | None = None) -> Array:
        """An array of finite numbers as stored.

        Raises:
            GraphError: it is missing, holds something else, or has not ``ndim`` axes.
        """
        value = np.asarray(self.stored(key))
        if value.dtype.kind not in "fiub" or (ndim is not None and value.ndim != ndim):
            raise self.error(
                f"{key} has shape {value.shape} and type {value.dtype}"
                + (f"; it must have {ndim} axes of numbers." if ndim is not None else "; it must hold numbers."),
                _AGAIN,
                "malformed-file",
            )
        if not np.isfinite(value).all():
            raise self.error(f"{key} holds values that are not finite.", "train again.", "not-finite")
        return value

    def array(self, key: str, ndim: int | None = None) -> Array:
        """An array in the graph's float32, or in the type that the metadata states."""
        value = self.numbers(key, ndim)
        wanted = np.dtype(self.dtypes.get(key, "float32"))
        with np.errstate(over="ignore", invalid="ignore"):
            rounded = value.astype(wanted)
        if not np.isfinite(rounded).all():
            raise self.error(
                f"{key} holds values that {wanted} cannot hold.", "bring the weights to a usual size.", "not-finite"
            )
        if not np.array_equal(rounded.astype(value.dtype), value):
            error = float(np.abs(rounded.astype(np.float64) - value.astype(np.float64)).max())
            self.remark("approximated", f"{key} rounded to {wanted}", error, f"in a value of {key}")
        return rounded

    def per_neuron(self, key: str) -> Array:
        """Like ``array``; one value for the layer where all are equal."""
        return self._joined(key, self.array(key))

    def precise(self, key: str) -> Array:
        """Like ``per_neuron``, in float64."""
        return self._joined(key, self.numbers(key).astype(np.float64))

    def _joined(self, key: str, value: Array) -> Array:
        if value.size == 0:
            raise self.error(f"{key} is empty.", _AGAIN, "malformed-file")
        first = value.reshape(-1)[0]
        return np.array(first) if (value == first).all() else value

    def whole(self, key: str) -> int:
        """One whole number."""
        value = np.asarray(self.stored(key))
        if value.dtype.kind not in "iu" or value.size != 1:
            raise self.error(f"{key} is {self.fields[key]!r}; it must be a whole number.", _AGAIN, "malformed-file")
        return int(value.reshape(-1)[0])

    def pair(self, key: str) -> Pair:
        """One or two whole numbers as (y, x)."""
        value = np.asarray(self.stored(key))
        if value.dtype.kind not in "iu" or value.shape not in ((), (1,), (2,)):
            raise self.error(
                f"{key} is {self.fields[key]!r}; it must be one or two whole numbers.", _AGAIN, "malformed-file"
            )
        y, x = np.broadcast_to(value, 2)
        return int(y), int(x)

    def shape(self, key: str) -> Shape | None:
        """A stored shape: an array, or in some files a dictionary with one array; None where there is none."""
        value = self.fields.get(key)
        if isinstance(value, dict):
            value = next(iter(value.values())) if len(value) == 1 else None
        if value is None or np.asarray(value).dtype.kind not in "iu":
            return None
        return tuple(int(size) for size in np.ravel(value))
