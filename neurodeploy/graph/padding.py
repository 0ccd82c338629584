"""Padding given by name."""

from collections.abc import Sequence

from neurodeploy.errors import GraphError
from neurodeploy.graph.nodes import Pair


def named_padding(where: str, padding: str, kernel: Sequence[int], stride: Pair, dilation: Pair) -> Pair:
    """The numbers (y, x) that ``"valid"`` or ``"same"`` stand for, as in torch and NIR.

    Raises:
        GraphError: ``"same"`` with a stride or an even kernel, which pads one side more than the other.
    """
    if padding == "valid":
        return 0, 0
    total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
    if padding == "same" and stride == (1, 1) and not any(size % 2 for size in total):
        return total[0] // 2, total[1] // 2
    raise GraphError(
        f"{where}: padding {padding!r} with kernel {tuple(kernel)} and stride {stride} is not one number per axis.",
        remedy="give the padding as numbers; 'same' needs stride 1 and an odd kernel.",
        code="padding",
    )
