"""Which chips hold a network, and what limits it where it does not fit."""

import pytest

from neurodeploy.fit import fit
from neurodeploy.target import load_target
from tests.targets.networks import GESTURE, GESTURE_INPUT, MNIST, MNIST_INPUT, as_float, chain


def test_a_layer_that_is_split_is_named():
    graph = as_float(chain((2, 34, 34), [(32, 3, 1, 0, 1), (64, 3, 1, 1, 1)]))
    found = fit(graph, load_target("speck2f"))
    assert (found.fits, found.on_several_cores) == (True, ("conv1",))


@pytest.mark.parametrize(
    ("network", "target", "code", "need", "limit"),
    [
        ((MNIST_INPUT, MNIST), "speck2f", "", "", ""),
        ((GESTURE_INPUT, GESTURE), "dynapcnndevkit", "", "", ""),
        ((GESTURE_INPUT, GESTURE), "speck2cmini", "too-many-layers", "9 cores", "5 cores"),
        ((MNIST_INPUT, MNIST), "speck2dmini", "placement", "2 cores", "1 cores (3)"),
        (((2, 8, 8), [(2, 3, 3, 0, 1)]), "speck2f", "stride", "y stride 3", "1, 2, 4, 8"),
        (((2, 8, 8), [(1100, 1, 1, 0, 1)]), "speck2e", "output-features", "1100", "1024"),
    ],
)
def test_what_limits_a_network(network, target, code, need, limit):
    found = fit(as_float(chain(*network)), load_target(target))
    assert (found.fits, found.code, found.need, found.limit) == (not code, code, need, limit)
    assert bool(found.remedy) == bool(code)
