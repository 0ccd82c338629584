// EXODUS on the CPU: the layer of native/layer.cpp with the exact backward scan (README.md derives it).
#include "layer.hpp"
#include "registry.hpp"

namespace nd::exodus {
namespace {

void bind(nanobind::module_& module) { layer::bind(module, layer::ResetPath::kept); }

const Registration registration{"exodus", bind};

}  // namespace
}  // namespace nd::exodus
