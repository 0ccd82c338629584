#include "registry.hpp"

NB_MODULE(_ext, module) {
    module.doc() = "Compiled parts of neurodeploy; one submodule per kernel and chip family.";
    for (const auto& [name, bind] : nd::registrations()) {
        nanobind::module_ submodule = module.def_submodule(name);
        bind(submodule);
    }
}
