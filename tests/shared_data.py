"""Where the development data lives; tests that need it skip when it is absent."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[1].parent / "shared" / "data"

#: Spike counts of layer 0 of ``speck-reference/cnn_sinabs.nir`` on a real Speck2f (README of that data): digit ->
#: (row of its recording in the N-MNIST test set, events, spikes on the chip, spikes emulated, sum of absolute
#: differences per neuron, share of neurons with equal counts).
MEASURED_ON_CHIP = {
    0: (3, 5293, 13446, 13458, 170, 0.9595),
    1: (2, 1665, 3590, 3590, 0, 1.0),
    2: (1, 4840, 12137, 12170, 169, 0.9600),
    3: (18, 6144, 15043, 15045, 166, 0.9604),
    4: (4, 3150, 7268, 7261, 33, 0.9919),
}

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="the development data is not beside the repository")
