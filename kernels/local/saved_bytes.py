"""How much memory a backward pass needs: the bytes autograd keeps for it."""

from collections import Counter
from collections.abc import Iterable
from types import TracebackType

import torch


class SavedBytes:
    """Peak of the bytes that autograd keeps for backward passes made while the context is open.

    Each storage counts once, however many operations keep it, until the last of them lets it go. Counted is what the
    opening thread saves; a ``LocalTraining`` with ``pipelined`` saves in others.

    Args:
        without: tensors that do not count, e.g. ``net.parameters()``, which are there anyway.

    Attributes:
        now: bytes kept at present.
        peak: most bytes kept at one time.
    """

    def __init__(self, without: Iterable[torch.Tensor] = ()) -> None:
        self.now = 0
        self.peak = 0
        self._without = {tensor.untyped_storage().data_ptr() for tensor in without}
        self._uses: Counter[int] = Counter()
        self._hooks = torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: _Kept(tensor, self), lambda kept: kept.tensor
        )

    def __enter__(self) -> "SavedBytes":
        self._hooks.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hooks.__exit__(kind, error, trace)

    def _keep(self, storage: torch.UntypedStorage) -> None:
        address = storage.data_ptr()
        if address in self._without:
            return
        self._uses[address] += 1
        if self._uses[address] == 1:
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)

    def _let_go(self, storage: torch.UntypedStorage) -> None:
        address = storage.data_ptr()
        if address in self._without:
            return
        self._uses[address] -= 1
        if self._uses[address] == 0:
            self.now -= storage.nbytes()


class _Kept:
    """A saved tensor; its end is the end of the saving."""

    def __init__(self, tensor: torch.Tensor, count: SavedBytes) -> None:
        self.tensor = tensor
        self._count = count
        count._keep(tensor.untyped_storage())

    def __del__(self) -> None:
        self._count._let_go(self.tensor.untyped_storage())
