"""neurodeploy: from a trained spiking network to a chip configuration you can trust.

The public verbs, loaded when they are first used, so that importing neurodeploy (and the command line's ``--help``)
stays fast and does not need torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from neurodeploy import nn
    from neurodeploy.analog.deployment import AnalogDeployment
    from neurodeploy.analog.monte_carlo import chip_yield
    from neurodeploy.compilation import compile, open
    from neurodeploy.compile_options import CompileOptions
    from neurodeploy.conversion.convert import convert
    from neurodeploy.conversion.images import load_images
    from neurodeploy.conversion.latency import latency_curve
    from neurodeploy.conversion.torch_ann import fine_tune
    from neurodeploy.deployment import Deployment
    from neurodeploy.graph.difference import difference
    from neurodeploy.graph.load import load
    from neurodeploy.graph.nir_reader import check_nir
    from neurodeploy.graph.pruning import prune_fan_in
    from neurodeploy.graph.save import save, to_nir
    from neurodeploy.graph.simulate import simulate
    from neurodeploy.graph.torch_reader import trace
    from neurodeploy.nn.accelerate import accelerate
    from neurodeploy.validation.calibrate import calibrate
    from neurodeploy.validation.divergence import first_divergence
    from neurodeploy.validation.guards import activity_guards
    from neurodeploy.validation.recorded import compare_with_chip
    from neurodeploy.validation.robustness import monte_carlo, order_robustness
    from neurodeploy.validation.sweep import sweep
    from neurodeploy.validation.time_step import largest_dt
    from neurodeploy.validation.validate import Validation, validate

_HOME = {
    "AnalogDeployment": "neurodeploy.analog.deployment",
    "CompileOptions": "neurodeploy.compile_options",
    "Deployment": "neurodeploy.deployment",
    "Validation": "neurodeploy.validation.validate",
    "accelerate": "neurodeploy.nn.accelerate",
    "activity_guards": "neurodeploy.validation.guards",
    "calibrate": "neurodeploy.validation.calibrate",
    "check_nir": "neurodeploy.graph.nir_reader",
    "chip_yield": "neurodeploy.analog.monte_carlo",
    "compare_with_chip": "neurodeploy.validation.recorded",
    "compile": "neurodeploy.compilation",
    "convert": "neurodeploy.conversion.convert",
    "difference": "neurodeploy.graph.difference",
    "fine_tune": "neurodeploy.conversion.torch_ann",
    "first_divergence": "neurodeploy.validation.divergence",
    "largest_dt": "neurodeploy.validation.time_step",
    "latency_curve": "neurodeploy.conversion.latency",
    "load": "neurodeploy.graph.load",
    "load_images": "neurodeploy.conversion.images",
    "monte_carlo": "neurodeploy.validation.robustness",
    "open": "neurodeploy.compilation",
    "order_robustness": "neurodeploy.validation.robustness",
    "prune_fan_in": "neurodeploy.graph.pruning",
    "save": "neurodeploy.graph.save",
    "simulate": "neurodeploy.graph.simulate",
    "sweep": "neurodeploy.validation.sweep",
    "to_nir": "neurodeploy.graph.save",
    "trace": "neurodeploy.graph.torch_reader",
    "validate": "neurodeploy.validation.validate",
}

__all__ = [
    "AnalogDeployment",
    "CompileOptions",
    "Deployment",
    "Validation",
    "accelerate",
    "activity_guards",
    "calibrate",
    "check_nir",
    "chip_yield",
    "compare_with_chip",
    "compile",
    "convert",
    "difference",
    "fine_tune",
    "first_divergence",
    "largest_dt",
    "latency_curve",
    "load",
    "load_images",
    "monte_carlo",
    "nn",
    "open",
    "order_robustness",
    "prune_fan_in",
    "save",
    "simulate",
    "sweep",
    "to_nir",
    "trace",
    "validate",
]


def __getattr__(name: str) -> Any:
    if name == "nn":
        return importlib.import_module("neurodeploy.nn")
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'neurodeploy' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
