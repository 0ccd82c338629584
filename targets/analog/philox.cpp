// Counter-based random numbers for Python (philox.py): arrays of counters in, words or normal numbers out.
#include "philox.hpp"

#include <nanobind/ndarray.h>

#include "registry.hpp"

namespace nd {
namespace {

namespace nb = nanobind;
using Counters = nb::ndarray<const std::uint32_t, nb::shape<-1, 4>, nb::c_contig, nb::device::cpu>;
using Words = nb::ndarray<std::uint32_t, nb::shape<-1, 4>, nb::c_contig, nb::device::cpu>;
using Uniform = nb::ndarray<const double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Numbers = nb::ndarray<double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

PhiloxWords counter_at(const Counters& counters, std::size_t n) {
    const std::uint32_t* row = counters.data() + 4 * n;
    return {row[0], row[1], row[2], row[3]};
}

void require(bool fits) {
    if (!fits) throw nb::value_error("The output has another length than the input.");
}

void bind(nb::module_& module) {
    module.def(
        "words",
        [](std::uint64_t key, const Counters& counters, const Words& out) {
            require(out.shape(0) == counters.shape(0));
            for (std::size_t n = 0; n < counters.shape(0); ++n) {
                const PhiloxWords words = philox(key, counter_at(counters, n));
                std::memcpy(out.data() + 4 * n, words.data(), sizeof words);
            }
        },
        nb::call_guard<nb::gil_scoped_release>(), nb::arg("key"), nb::arg("counters").noconvert(),
        nb::arg("out").noconvert());
    module.def(
        "normal",
        [](std::uint64_t key, const Counters& counters, const Numbers& out) {
            require(out.shape(0) == counters.shape(0));
            for (std::size_t n = 0; n < counters.shape(0); ++n)
                out.data()[n] = philox_normal(key, counter_at(counters, n));
        },
        nb::call_guard<nb::gil_scoped_release>(), nb::arg("key"), nb::arg("counters").noconvert(),
        nb::arg("out").noconvert());
    module.def(
        "quantile",
        [](const Uniform& uniform, const Numbers& out) {
            require(out.shape(0) == uniform.shape(0));
            for (std::size_t n = 0; n < uniform.shape(0); ++n) out.data()[n] = normal_quantile(uniform.data()[n]);
        },
        nb::arg("uniform").noconvert(), nb::arg("out").noconvert());
}

const Registration registration{"philox", bind};

}  // namespace
}  // namespace nd
