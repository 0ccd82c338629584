"""What the Triton kernels of all algorithms share: device functions, launching, memory, checks without waiting.

Importing this package imports neither triton nor torch. ``kernels/<algorithm>/gpu.py`` has an algorithm's kernels; they
are imported when a tensor on a GPU first needs them.
"""
