"""Pooled output buffers: used again, never while somebody holds them, and given back on request."""

import threading

import pytest
import torch

from neurodeploy import buffers

SHAPE = (3, 1024, 1024)
BYTES = 12 << 20


@pytest.fixture(autouse=True)
def empty_pool() -> None:
    buffers.release()


def test_memory_is_used_again_after_the_last_reference() -> None:
    used = buffers.used_bytes()
    first = buffers.empty(SHAPE, torch.float32)
    assert (first.shape, first.dtype, first.is_contiguous()) == (SHAPE, torch.float32, True)
    assert first.data_ptr() % 64 == 0
    address = first.data_ptr()
    view = first[1:, ::2]
    del first
    second = buffers.empty(SHAPE, torch.float32)
    assert second.data_ptr() != address  # a view still holds it
    assert buffers.used_bytes() - used == 2 * BYTES
    del view
    third = buffers.empty((BYTES // 8,), torch.float64)
    assert third.data_ptr() == address
    del second, third
    assert buffers.used_bytes() == used


def test_autograd_keeps_its_buffer() -> None:
    tensor = buffers.empty(SHAPE, torch.float32).fill_(2.0)
    leaf = torch.ones(SHAPE, requires_grad=True)
    product = (leaf * tensor).sum()
    address = tensor.data_ptr()
    del tensor
    other = buffers.empty(SHAPE, torch.float32).fill_(torch.nan)
    assert other.data_ptr() != address
    product.backward()
    assert leaf.grad is not None
    assert bool((leaf.grad == 2).all())


def test_pool_is_bounded_and_released() -> None:
    for size in range(4, 20):
        buffers.empty((size << 18,), torch.float32)
    assert buffers.free_bytes() <= 1.5 * (19 << 20) + (2 << 20)
    buffers.release()
    assert buffers.free_bytes() == 0


def test_small_tensors_are_torchs_own() -> None:
    used = buffers.used_bytes()
    tensor = buffers.empty((100,), torch.float64)
    assert tensor.dtype == torch.float64
    assert buffers.used_bytes() == used


def test_threads_share_the_pool() -> None:
    wrong = []

    def work(value: float) -> None:
        for _ in range(20):
            tensor = buffers.empty((1 << 19,), torch.float32).fill_(value)
            if not bool((tensor == value).all()):
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(float(i),)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
