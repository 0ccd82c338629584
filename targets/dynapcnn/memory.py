"""What a layer takes of a core's three memories. Addresses are padded to powers of two, which is what fails to fit.

Speck Dev Kit Datasheet V1.0, section on CNN core memory; the same formulas are in sinabs' ``memory_summary``.
"""

from neurodeploy.targets.dynapcnn.layers import CoreLayer


def address_bits(count: int) -> int:
    """Bits that address ``count`` things: ``ceil(log2(count))``, exact."""
    return (count - 1).bit_length()


def kernel_words(input_features: int, output_features: int, kernel: tuple[int, int]) -> int:
    """8-bit words of kernel memory: ``c * 2^(ceil(log2(ky kx)) + ceil(log2 f))``."""
    return int(input_features) << (address_bits(kernel[0] * kernel[1]) + address_bits(output_features))


def neuron_words(output_shape: tuple[int, int, int]) -> int:
    """16-bit words of neuron memory for a map ``(F, H, W)`` before pooling: ``f * 2^(ceil(log2 h) + ceil(log2 w))``."""
    f, h, w = output_shape
    return int(f) << (address_bits(h) + address_bits(w))


def needs(layer: CoreLayer, features: int | None = None) -> dict[str, int]:
    """Words of ``kernel``, ``neuron`` and ``bias`` memory of a layer, or of a part of it with ``features`` features.

    A layer without bias takes no bias words.
    """
    f, c, ky, kx = layer.conv.weight.shape
    f = features or f
    return {
        "kernel": kernel_words(c, f, (ky, kx)),
        "neuron": neuron_words((f, *layer.output_shape[1:])),
        "bias": f if layer.has_bias else 0,
    }
