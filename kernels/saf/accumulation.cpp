// Spike accumulation on the CPU: potentials of one layer to weighted spike accumulations, and the gradient through the
// surrogate (README.md derives both). Arrays are [T, B, N]; one task is one sample and one tile of columns, and walks
// the time axis alone, so results do not depend on the number of threads or on the tiling.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "multiversion.hpp"
#include "neuron.hpp"
#include "registry.hpp"
#include "rows.hpp"
#include "surrogate.hpp"

namespace nd::saf {
namespace {

constexpr std::int64_t tile_bytes = 8192;  // the rows of state of a tile stay in the first-level cache

// How the potential follows from z: the order is that of FORMS in accumulation.py.
enum class Form { closed = 0, recurrent = 1, lif = 2 };

struct Options {
    std::int64_t batch, steps, neurons;
    int form;
    std::int64_t max_spikes;  // 0: no limit
    int threads;
};

#define ND_STEP_ARGUMENTS(REAL)                                                                                       \
    std::int64_t n, const REAL *__restrict z, const REAL *__restrict threshold, const REAL *__restrict gain,          \
        const REAL *__restrict before, REAL decay, REAL limit, REAL *__restrict potential, REAL *__restrict a,        \
        REAL *__restrict spikes, REAL *__restrict kept

// `before` is the accumulation of the step before. `potential` carries U ("recurrent") or the potential after the reset
// ("lif"); `spikes` is written in "lif" only. `kept`, the potential before the reset, may be null.
template <class Real, Form form, bool single>
inline __attribute__((always_inline)) void step_block(ND_STEP_ARGUMENTS(Real)) {
    for (std::int64_t i = 0; i < n; ++i) {
        const Real decayed = decay * before[i];
        Real total = gain[i] * z[i];
        if constexpr (form != Form::closed) total = integrate(potential[i], z[i], decay, gain[i]);
        const Real v = form == Form::lif ? total : total - threshold[i] * decayed;
        Real s;
        if constexpr (single) {
            s = fire_single(v, threshold[i]);
        } else {
            s = fire_multi(v, threshold[i], limit);
        }
        a[i] = decayed + s;
        if constexpr (form == Form::recurrent) potential[i] = total;
        if constexpr (form == Form::lif) {
            potential[i] = after_spikes<Reset::subtract>(v, s, threshold[i]);
            spikes[i] = s;
        }
        if (kept) kept[i] = v;
    }
}

#define ND_STEP(NAME, REAL, FORM, SINGLE)                                                                             \
    ND_MULTIVERSION void NAME(ND_STEP_ARGUMENTS(REAL)) {                                                              \
        step_block<REAL, FORM, SINGLE>(n, z, threshold, gain, before, decay, limit, potential, a, spikes, kept);       \
    }
#define ND_STEPS(REAL, SUFFIX)                                      \
    ND_STEP(closed_multi_##SUFFIX, REAL, Form::closed, false)       \
    ND_STEP(closed_single_##SUFFIX, REAL, Form::closed, true)       \
    ND_STEP(recurrent_multi_##SUFFIX, REAL, Form::recurrent, false) \
    ND_STEP(recurrent_single_##SUFFIX, REAL, Form::recurrent, true) \
    ND_STEP(lif_multi_##SUFFIX, REAL, Form::lif, false)             \
    ND_STEP(lif_single_##SUFFIX, REAL, Form::lif, true)
ND_STEPS(float, f32)
ND_STEPS(double, f64)
#undef ND_STEPS
#undef ND_STEP

#define ND_SLOPE_ARGUMENTS(REAL)                                                                                      \
    std::int64_t n, const REAL *__restrict grad, const REAL *__restrict kept, const REAL *__restrict threshold,       \
        const REAL *__restrict gain, const REAL *__restrict rate, const REAL *__restrict peak, REAL inverse_width,    \
        REAL scale, REAL *__restrict grad_z

template <class Real, Surrogate kind>
inline __attribute__((always_inline)) void slope_block(ND_SLOPE_ARGUMENTS(Real)) {
    for (std::int64_t i = 0; i < n; ++i) {
        const Real slope = surrogate_gradient<kind>(kept[i] - threshold[i], rate[i], peak[i], inverse_width, scale);
        grad_z[i] = gain[i] * (slope * grad[i]);
    }
}

#define ND_SLOPE(KIND, REAL, SUFFIX)                                                                                  \
    ND_MULTIVERSION void KIND##_##SUFFIX(ND_SLOPE_ARGUMENTS(REAL)) {                                                  \
        slope_block<REAL, Surrogate::KIND>(n, grad, kept, threshold, gain, rate, peak, inverse_width, scale, grad_z); \
    }
#define ND_SLOPES(REAL, SUFFIX)                                                                          \
    ND_SLOPE(single_exponential, REAL, SUFFIX)                                                           \
    ND_SLOPE(periodic_exponential, REAL, SUFFIX)                                                         \
    ND_SLOPE(box, REAL, SUFFIX)                                                                          \
    ND_SLOPE(sigmoid, REAL, SUFFIX)                                                                      \
    ND_SLOPE(arctan, REAL, SUFFIX)                                                                       \
    ND_SLOPE(heaviside, REAL, SUFFIX)
ND_SLOPES(float, f32)
ND_SLOPES(double, f64)
#undef ND_SLOPES
#undef ND_SLOPE

template <class Real>
using StepBlock = void (*)(ND_STEP_ARGUMENTS(Real));
template <class Real>
using SlopeBlock = void (*)(ND_SLOPE_ARGUMENTS(Real));

// Steps by form and single spikes; slopes by surrogate.
#define ND_TABLES(REAL, SUFFIX)                                                                                       \
    inline StepBlock<REAL> step_of(REAL, int form, bool single) {                                                     \
        static const StepBlock<REAL> table[3][2] = {{closed_multi_##SUFFIX, closed_single_##SUFFIX},                  \
                                                    {recurrent_multi_##SUFFIX, recurrent_single_##SUFFIX},            \
                                                    {lif_multi_##SUFFIX, lif_single_##SUFFIX}};                       \
        return table[form][single];                                                                                   \
    }                                                                                                                 \
    inline SlopeBlock<REAL> slope_of(REAL, int surrogate) {                                                           \
        static const SlopeBlock<REAL> table[6] = {                                                                    \
            single_exponential_##SUFFIX, periodic_exponential_##SUFFIX, box_##SUFFIX, sigmoid_##SUFFIX,               \
            arctan_##SUFFIX,             heaviside_##SUFFIX};                                                         \
        return table[surrogate];                                                                                      \
    }
ND_TABLES(float, f32)
ND_TABLES(double, f64)
#undef ND_TABLES

template <class Real>
void forward(const Options& options, Real decay, const Real* z, const Real* threshold, std::int64_t thresholds,
             const Real* gain, std::int64_t gains, Real* potential, const Real* accumulation, Real* a,
             Real* spikes, Real* kept) {
    const Tiling tiling = tile(options.batch, options.neurons, options.threads, tile_bytes / sizeof(Real));
    const Column<Real> threshold_column(threshold, thresholds), gain_column(gain, gains);
    const Real limit = options.max_spikes == 0 ? std::numeric_limits<Real>::infinity()
                                               : static_cast<Real>(options.max_spikes);
    const auto step = step_of(Real(), options.form, options.max_spikes == 1);

#pragma omp parallel for schedule(static) num_threads(options.threads)
    for (std::int64_t task = 0; task < tiling.tasks; ++task) {
        const std::int64_t begin = task % tiling.per_sample * tiling.columns;
        const std::int64_t end = std::min(begin + tiling.columns, options.neurons);
        const std::int64_t sample = task / tiling.per_sample * options.neurons;
        for (std::int64_t t = 0; t < options.steps; ++t) {
            const std::int64_t row = t * options.batch * options.neurons + sample;
            const Real* before = t == 0 ? accumulation + sample : a + row - options.batch * options.neurons;
            for (std::int64_t column = begin; column < end; column += block_columns) {
                const std::int64_t n = std::min(block_columns, end - column), at = row + column;
                step(n, z + at, threshold_column.at(column), gain_column.at(column), before + column, decay, limit,
                     potential ? potential + sample + column : nullptr, a + at, spikes ? spikes + at : nullptr,
                     kept ? kept + at : nullptr);
            }
        }
    }
}

template <class Real>
void backward(const Options& options, int surrogate, double width, double scale, const Real* grad, const Real* kept,
              const Real* threshold, std::int64_t thresholds, const Real* gain, std::int64_t gains, const Real* unit,
              std::int64_t units, Real* grad_z) {
    const Tiling tiling = tile(options.batch, options.neurons, options.threads, tile_bytes / sizeof(Real));
    const Column<Real> threshold_column(threshold, thresholds), gain_column(gain, gains);
    std::vector<Real> rates(units), peaks(units);
    for (std::int64_t i = 0; i < units; ++i) {
        const auto column = surrogate_column<Real>(static_cast<Surrogate>(surrogate), unit[i],
                                                   static_cast<Real>(width), static_cast<Real>(scale));
        rates[i] = column.rate;
        peaks[i] = column.peak;
    }
    const Column<Real> rate(rates.data(), units), peak(peaks.data(), units);
    const Real inverse_width = Real(1) / static_cast<Real>(width);
    const auto slope = slope_of(Real(), surrogate);

#pragma omp parallel for schedule(static) num_threads(options.threads)
    for (std::int64_t task = 0; task < tiling.tasks; ++task) {
        const std::int64_t begin = task % tiling.per_sample * tiling.columns;
        const std::int64_t end = std::min(begin + tiling.columns, options.neurons);
        const std::int64_t sample = task / tiling.per_sample * options.neurons;
        for (std::int64_t t = 0; t < options.steps; ++t) {
            const std::int64_t row = t * options.batch * options.neurons + sample;
            for (std::int64_t column = begin; column < end; column += block_columns) {
                const std::int64_t n = std::min(block_columns, end - column), at = row + column;
                slope(n, grad + at, kept + at, threshold_column.at(column), gain_column.at(column), rate.at(column),
                      peak.at(column), inverse_width, static_cast<Real>(scale), grad_z + at);
            }
        }
    }
}

template <class Real>
void run_forward(const Options& options, double decay, std::uintptr_t z, std::uintptr_t threshold,
                 std::int64_t thresholds, std::uintptr_t gain, std::int64_t gains, std::uintptr_t potential,
                 std::uintptr_t accumulation, std::uintptr_t a, std::uintptr_t spikes, std::uintptr_t kept) {
    forward<Real>(options, static_cast<Real>(decay), address<const Real>(z), address<const Real>(threshold), thresholds,
                  address<const Real>(gain), gains, address<Real>(potential),
                  address<const Real>(accumulation), address<Real>(a), address<Real>(spikes), address<Real>(kept));
}

template <class Real>
void run_backward(const Options& options, int surrogate, double width, double scale, std::uintptr_t grad,
                  std::uintptr_t kept, std::uintptr_t threshold, std::int64_t thresholds, std::uintptr_t gain,
                  std::int64_t gains, std::uintptr_t unit, std::int64_t units, std::uintptr_t grad_z) {
    backward<Real>(options, surrogate, width, scale, address<const Real>(grad), address<const Real>(kept),
                   address<const Real>(threshold), thresholds, address<const Real>(gain), gains,
                   address<const Real>(unit), units, address<Real>(grad_z));
}

void bind(nanobind::module_& module) {
    using nanobind::arg;
    nanobind::class_<Options>(module, "Options")
        .def(
            "__init__",
            [](Options* self, std::int64_t batch, std::int64_t steps, std::int64_t neurons, int form,
               std::int64_t max_spikes, int threads) {
                new (self) Options{batch, steps, neurons, form, max_spikes, threads};
            },
            arg("batch"), arg("steps"), arg("neurons"), arg("form"), arg("max_spikes"), arg("threads"));
    // Arrays are addresses of contiguous buffers (0: absent); accumulation.py has checked dtype, shape and device before.
    const auto no_gil = nanobind::call_guard<nanobind::gil_scoped_release>();
    module.def("forward_f32", run_forward<float>, no_gil);
    module.def("forward_f64", run_forward<double>, no_gil);
    module.def("backward_f32", run_backward<float>, no_gil);
    module.def("backward_f64", run_backward<double>, no_gil);
}

const Registration registration{"saf", bind};

}  // namespace
}  // namespace nd::saf
