// Deviations of circuits for Python (deviations.py): counters of circuits in, factors and shifts out.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <cmath>
#include <cstdint>

#include "exponential.hpp"
#include "logarithm.hpp"
#include "philox.hpp"
#include "registry.hpp"

namespace nd {
namespace {

namespace nb = nanobind;
using Sites = nb::ndarray<const std::int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Numbers = nb::ndarray<double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

double exponential(double x) { return x <= 0 ? exp_nonpositive(x) : 1.0 / exp_nonpositive(-x); }

// Standard deviation of the logarithm of a log-normal factor with this coefficient of variation.
double log_deviation(double cv) { return std::sqrt(log_positive(1.0 + cv * cv)); }

// A circuit's standard deviation and its standard normal number.
struct Draw {
    double normal;
    bool outlier;
};

Draw draw(std::uint64_t key, std::uint32_t parameter, std::int64_t site, double tail_share) {
    const auto number = static_cast<std::uint64_t>(site);
    const PhiloxWords words =
        philox(key, {static_cast<std::uint32_t>(number), static_cast<std::uint32_t>(number >> 32), parameter, 0});
    return {normal_quantile(uniform_open(words[0], words[1])), uniform_open(words[2], words[3]) < tail_share};
}

void require(const Sites& sites, const Numbers& out) {
    if (sites.shape(0) != out.shape(0)) throw nb::value_error("The output has another length than the sites.");
}

void bind(nb::module_& module) {
    module.def(
        "factors",
        [](std::uint64_t key, std::uint32_t parameter, const Sites& sites, double cv, double tail_share, double tail_cv,
           double scale, const Numbers& out) {
            require(sites, out);
            const double inside = scale * log_deviation(cv), outside = scale * log_deviation(tail_cv);
            for (std::size_t n = 0; n < sites.shape(0); ++n) {
                const Draw found = draw(key, parameter, sites.data()[n], tail_share);
                const double sd = found.outlier ? outside : inside;
                out.data()[n] = exponential(sd * found.normal - 0.5 * sd * sd);
            }
        },
        nb::call_guard<nb::gil_scoped_release>(), nb::arg("key"), nb::arg("parameter"), nb::arg("sites").noconvert(),
        nb::arg("cv"), nb::arg("tail_share"), nb::arg("tail_cv"), nb::arg("scale"), nb::arg("out").noconvert());
    module.def(
        "shifts",
        [](std::uint64_t key, std::uint32_t parameter, const Sites& sites, double sigma, double tail_share,
           double tail_sigma, double scale, const Numbers& out) {
            require(sites, out);
            for (std::size_t n = 0; n < sites.shape(0); ++n) {
                const Draw found = draw(key, parameter, sites.data()[n], tail_share);
                out.data()[n] = scale * (found.outlier ? tail_sigma : sigma) * found.normal;
            }
        },
        nb::call_guard<nb::gil_scoped_release>(), nb::arg("key"), nb::arg("parameter"), nb::arg("sites").noconvert(),
        nb::arg("sigma"), nb::arg("tail_share"), nb::arg("tail_sigma"), nb::arg("scale"), nb::arg("out").noconvert());
}

const Registration registration{"deviations", bind};

}  // namespace
}  // namespace nd
