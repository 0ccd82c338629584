// SLAYER on the CPU: the layer of native/layer.cpp with the backward scan without the reset path (README.md says what that changes).
#include "layer.hpp"
#include "registry.hpp"

namespace nd::slayer {
namespace {

void bind(nanobind::module_& module) { layer::bind(module, layer::ResetPath::dropped); }

const Registration registration{"slayer", bind};

}  // namespace
}  // namespace nd::slayer
