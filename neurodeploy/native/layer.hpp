// Forward and backward pass of IAF/LIF layers, bound for the algorithms in kernels/.
#pragma once

#include <nanobind/nanobind.h>

namespace nd::layer {

// What a spike does to the loss through the reset of its own neuron: part of the gradient, or left out.
enum class ResetPath { dropped, kept };

// Add `forward` and `backward` to an algorithm's submodule; they take the Options of neurodeploy._ext.layer. The
// attribute `neuron_algorithm` tells kernel.py that layers can choose it.
void bind(nanobind::module_& module, ResetPath path);

}  // namespace nd::layer
