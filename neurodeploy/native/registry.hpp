// How a folder under kernels/ or targets/ adds its C++ functions to neurodeploy._ext.
#pragma once

#include <nanobind/nanobind.h>

#include <utility>
#include <vector>

namespace nd {

using BindFunction = void (*)(nanobind::module_&);

// (submodule name, function that fills it), collected before the module is initialised.
inline std::vector<std::pair<const char*, BindFunction>>& registrations() {
    static std::vector<std::pair<const char*, BindFunction>> all;
    return all;
}

// `static nd::Registration registration{"exodus", bind};` in a .cpp file makes neurodeploy._ext.exodus.
struct Registration {
    Registration(const char* submodule, BindFunction bind) { registrations().emplace_back(submodule, bind); }
};

}  // namespace nd
