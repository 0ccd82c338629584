// The inner loops of what a neuron may have besides its potential: a synaptic current, an adapting threshold, lateral
// connections. Written like layer_blocks.cpp: a template says what is computed, a macro makes a function of each instance.
#include <algorithm>

#include "layer_blocks.hpp"

#include <cstring>
#include "multiversion.hpp"
#include "neuron.hpp"
#include "surrogate.hpp"

namespace nd::layer {
namespace {

template <class Real, Surrogate kind>
inline __attribute__((always_inline)) void surrogate_columns_block(std::int64_t n, const Real* __restrict unit,
                                                                   Real width, Real scale, Real* __restrict rate,
                                                                   Real* __restrict peak) {
    for (std::int64_t i = 0; i < n; ++i) {
        const auto column = surrogate_column<Real>(kind, unit[i], width, scale);
        rate[i] = column.rate;
        peak[i] = column.peak;
    }
}

template <class Real, Reset reset, bool reset_path>
inline __attribute__((always_inline)) void threshold_adjoint_block(
    std::int64_t n, const Real* __restrict v, const Real* __restrict spikes, const Real* __restrict surrogate,
    const Real* __restrict grad_spikes, const Real* __restrict threshold, const Real* __restrict p, Real v_min_after,
    Real most, Real level, Real* __restrict grad_threshold) {
    for (std::int64_t i = 0; i < n; ++i) {
        Real q = grad_spikes[i];
        if constexpr (reset == Reset::subtract) {
            const Real free = v[i] - threshold[i] * spikes[i] > v_min_after ? p[i] : Real(0);
            if constexpr (reset_path) q = q - threshold[i] * free;
            grad_threshold[i] = -(level * (surrogate[i] * q)) - spikes[i] * free;
        } else {
            if constexpr (reset == Reset::zero && reset_path) {
                const Real after = v[i] * (Real(1) - (spikes[i] > most ? most : spikes[i]));
                q = q - v[i] * (after > v_min_after ? p[i] : Real(0));
            }
            grad_threshold[i] = -(level * (surrogate[i] * q));
        }
    }
}

template <class Real>
inline __attribute__((always_inline)) void synapse_forward(std::int64_t n, const Real* __restrict x,
                                                           const Real* __restrict lateral, const Real* __restrict decay,
                                                           Real* __restrict current, Real* __restrict drive) {
    for (std::int64_t i = 0; i < n; ++i) {
        drive[i] = current[i] + (x[i] + lateral[i]);
        current[i] = decay[i] * drive[i];
    }
}

template <class Real, bool parameters>
inline __attribute__((always_inline)) void synapse_adjoint(std::int64_t n, const Real* __restrict grad_current,
                                                           const Real* __restrict decay, const Real* __restrict drive,
                                                           Real* __restrict p, Real* __restrict grad_x,
                                                           double* __restrict grad_decay) {
    for (std::int64_t i = 0; i < n; ++i) {
        const Real adjoint = p[i] + grad_current[i];
        if constexpr (parameters) grad_decay[i] += static_cast<double>(adjoint) * static_cast<double>(drive[i]);
        p[i] = decay[i] * adjoint;
        grad_x[i] = p[i];
    }
}

template <class Real>
inline __attribute__((always_inline)) void adaptation_raise(std::int64_t n, const Real* __restrict base,
                                                            const Real* __restrict unit, const Real* __restrict scale,
                                                            const Real* __restrict b, Real* __restrict threshold,
                                                            Real* __restrict raised_unit) {
    for (std::int64_t i = 0; i < n; ++i) {
        threshold[i] = base[i] + scale[i] * b[i];
        raised_unit[i] = unit[i] + scale[i] * b[i];
    }
}

template <class Real>
inline __attribute__((always_inline)) void adaptation_forward(std::int64_t n, const Real* __restrict spikes,
                                                              const Real* __restrict decay, Real* __restrict b) {
    for (std::int64_t i = 0; i < n; ++i) b[i] = decay[i] * b[i] + (Real(1) - decay[i]) * spikes[i];
}

template <class Real, bool parameters>
inline __attribute__((always_inline)) void adaptation_adjoint(std::int64_t n, const Real* __restrict grad_threshold,
                                                              const Real* __restrict spikes, const Real* __restrict b,
                                                              const Real* __restrict decay, const Real* __restrict scale,
                                                              Real* __restrict p, double* __restrict grad_base,
                                                              double* __restrict grad_decay,
                                                              double* __restrict grad_scale) {
    for (std::int64_t i = 0; i < n; ++i) {
        if constexpr (parameters) {
            grad_base[i] += static_cast<double>(grad_threshold[i]);
            grad_decay[i] += static_cast<double>(p[i]) * (static_cast<double>(b[i]) - static_cast<double>(spikes[i]));
            grad_scale[i] += static_cast<double>(grad_threshold[i]) * static_cast<double>(b[i]);
        }
        p[i] = decay[i] * p[i] + scale[i] * grad_threshold[i];
    }
}

template <class Real>
inline __attribute__((always_inline)) void add_rows_block(std::int64_t n, std::int64_t count,
                                                          const std::int64_t* __restrict index,
                                                          const Real* __restrict value, const Real* __restrict matrix,
                                                          std::int64_t stride, const Real* __restrict start,
                                                          Real* __restrict out) {
    constexpr std::int64_t tile = 256 / sizeof(Real);  // sums that stay in registers
    std::int64_t first = 0;
    for (; first + tile <= n; first += tile) {
        Real sum[tile];
        for (std::int64_t i = 0; i < tile; ++i) sum[i] = start[first + i];
        for (std::int64_t k = 0; k < count; ++k) {
            const Real* row = matrix + index[k] * stride + first;
            for (std::int64_t i = 0; i < tile; ++i) sum[i] += value[k] * row[i];
        }
        for (std::int64_t i = 0; i < tile; ++i) out[first + i] = sum[i];
    }
    for (std::int64_t i = first; i < n; ++i) out[i] = start[i];
    for (std::int64_t k = 0; k < count; ++k) {
        const Real* row = matrix + index[k] * stride;
        for (std::int64_t i = first; i < n; ++i) out[i] += value[k] * row[i];
    }
}

// Sums of one tile for all samples stay in registers, and each row of the matrix is read once for all of them.
template <class Real>
inline __attribute__((always_inline)) void add_rows_together_block(
    std::int64_t n, std::int64_t samples, std::int64_t count, const std::int64_t* __restrict index,
    const Real* __restrict values, const Real* __restrict matrix, std::int64_t stride, const Real* __restrict start,
    Real* __restrict out, std::int64_t out_stride) {
    constexpr std::int64_t lanes = 64 / sizeof(Real), tile = 2 * lanes;
    typedef Real Vector __attribute__((vector_size(64)));
    std::int64_t first = 0;
    for (; first + tile <= n; first += tile) {
        Vector begin[2], low[lateral_samples], high[lateral_samples];
        std::memcpy(begin, start + first, sizeof begin);
        for (std::int64_t s = 0; s < lateral_samples; ++s) low[s] = begin[0], high[s] = begin[1];
        for (std::int64_t k = 0; k < count; ++k) {
            Vector row[2];
            std::memcpy(row, matrix + index[k] * stride + first, sizeof row);
            const Real* value = values + k * lateral_samples;
            for (std::int64_t s = 0; s < lateral_samples; ++s) {
                low[s] += value[s] * row[0];
                high[s] += value[s] * row[1];
            }
        }
        for (std::int64_t s = 0; s < samples; ++s) {
            std::memcpy(out + s * out_stride + first, &low[s], sizeof low[s]);
            std::memcpy(out + s * out_stride + first + lanes, &high[s], sizeof high[s]);
        }
    }
    for (std::int64_t s = 0; s < samples; ++s) {
        Real* sum = out + s * out_stride;
        for (std::int64_t i = first; i < n; ++i) sum[i] = start[i];
        for (std::int64_t k = 0; k < count; ++k) {
            const Real* row = matrix + index[k] * stride;
            for (std::int64_t i = first; i < n; ++i) sum[i] += values[k * lateral_samples + s] * row[i];
        }
    }
}

#define ND_STATE(REAL, SUFFIX)                                                                                        \
    ND_MULTIVERSION void synapse_forward_##SUFFIX(std::int64_t n, const REAL* x, const REAL* lateral,                  \
                                                  const REAL* decay, REAL* current, REAL* drive) {                     \
        synapse_forward<REAL>(n, x, lateral, decay, current, drive);                                                   \
    }                                                                                                                  \
    ND_MULTIVERSION void synapse_adjoint_##SUFFIX(std::int64_t n, const REAL* grad_current, const REAL* decay,         \
                                                  const REAL* drive, REAL* p, REAL* grad_x, double* grad_decay) {      \
        synapse_adjoint<REAL, false>(n, grad_current, decay, drive, p, grad_x, grad_decay);                            \
    }                                                                                                                  \
    ND_MULTIVERSION void synapse_adjoint_parameters_##SUFFIX(std::int64_t n, const REAL* grad_current,                 \
                                                             const REAL* decay, const REAL* drive, REAL* p,            \
                                                             REAL* grad_x, double* grad_decay) {                       \
        synapse_adjoint<REAL, true>(n, grad_current, decay, drive, p, grad_x, grad_decay);                             \
    }                                                                                                                  \
    ND_MULTIVERSION void adaptation_raise_##SUFFIX(std::int64_t n, const REAL* base, const REAL* unit,                 \
                                                   const REAL* scale, const REAL* b, REAL* threshold,                  \
                                                   REAL* raised_unit) {                                                \
        adaptation_raise<REAL>(n, base, unit, scale, b, threshold, raised_unit);                                       \
    }                                                                                                                  \
    ND_MULTIVERSION void adaptation_forward_##SUFFIX(std::int64_t n, const REAL* spikes, const REAL* decay, REAL* b) { \
        adaptation_forward<REAL>(n, spikes, decay, b);                                                                 \
    }                                                                                                                  \
    ND_MULTIVERSION void adaptation_adjoint_##SUFFIX(                                                                  \
        std::int64_t n, const REAL* grad_threshold, const REAL* spikes, const REAL* b, const REAL* decay,              \
        const REAL* scale, REAL* p, double* grad_base, double* grad_decay, double* grad_scale) {                       \
        adaptation_adjoint<REAL, false>(n, grad_threshold, spikes, b, decay, scale, p, grad_base, grad_decay,          \
                                        grad_scale);                                                                   \
    }                                                                                                                  \
    ND_MULTIVERSION void adaptation_adjoint_parameters_##SUFFIX(                                                       \
        std::int64_t n, const REAL* grad_threshold, const REAL* spikes, const REAL* b, const REAL* decay,              \
        const REAL* scale, REAL* p, double* grad_base, double* grad_decay, double* grad_scale) {                       \
        adaptation_adjoint<REAL, true>(n, grad_threshold, spikes, b, decay, scale, p, grad_base, grad_decay,           \
                                       grad_scale);                                                                    \
    }                                                                                                                  \
    ND_MULTIVERSION void add_rows_##SUFFIX(std::int64_t n, std::int64_t count, const std::int64_t* index,              \
                                           const REAL* value, const REAL* matrix, std::int64_t stride,                 \
                                           const REAL* start, REAL* out) {                                             \
        add_rows_block<REAL>(n, count, index, value, matrix, stride, start, out);                                      \
    }                                                                                                                  \
    ND_MULTIVERSION void add_rows_together_##SUFFIX(std::int64_t n, std::int64_t samples, std::int64_t count,          \
                                                    const std::int64_t* index, const REAL* values,                     \
                                                    const REAL* matrix, std::int64_t stride, const REAL* start,        \
                                                    REAL* out, std::int64_t out_stride) {                              \
        add_rows_together_block<REAL>(n, samples, count, index, values, matrix, stride, start, out, out_stride);       \
    }
ND_STATE(float, f32)
ND_STATE(double, f64)
#undef ND_STATE

#define ND_COLUMNS(NAME, REAL, KIND)                                                                                  \
    ND_MULTIVERSION void NAME(std::int64_t n, const REAL* unit, REAL width, REAL scale, REAL* rate, REAL* peak) {      \
        surrogate_columns_block<REAL, KIND>(n, unit, width, scale, rate, peak);                                        \
    }
#define ND_COLUMNS_ALL(KIND)                                          \
    ND_COLUMNS(columns_##KIND##_f32, float, Surrogate::KIND)          \
    ND_COLUMNS(columns_##KIND##_f64, double, Surrogate::KIND)
ND_COLUMNS_ALL(single_exponential)
ND_COLUMNS_ALL(periodic_exponential)
ND_COLUMNS_ALL(box)
ND_COLUMNS_ALL(sigmoid)
ND_COLUMNS_ALL(arctan)
ND_COLUMNS_ALL(heaviside)
#undef ND_COLUMNS_ALL
#undef ND_COLUMNS

#define ND_THRESHOLD(NAME, REAL, RESET, RESET_PATH)                                                                   \
    ND_MULTIVERSION void NAME(std::int64_t n, const REAL* v, const REAL* spikes, const REAL* surrogate,                \
                              const REAL* grad_spikes, const REAL* threshold, const REAL* p, REAL v_min_after,         \
                              REAL most, REAL level, REAL* grad_threshold) {                                                      \
        threshold_adjoint_block<REAL, RESET, RESET_PATH>(n, v, spikes, surrogate, grad_spikes, threshold, p,           \
                                                         v_min_after, most, level, grad_threshold);                    \
    }
#define ND_THRESHOLD_ALL(REAL, SUFFIX)                                                 \
    ND_THRESHOLD(threshold_subtract_##SUFFIX, REAL, Reset::subtract, true)             \
    ND_THRESHOLD(threshold_subtract_detached_##SUFFIX, REAL, Reset::subtract, false)   \
    ND_THRESHOLD(threshold_zero_##SUFFIX, REAL, Reset::zero, true)                     \
    ND_THRESHOLD(threshold_direct_##SUFFIX, REAL, Reset::none, false)
ND_THRESHOLD_ALL(float, f32)
ND_THRESHOLD_ALL(double, f64)
#undef ND_THRESHOLD_ALL
#undef ND_THRESHOLD

}  // namespace

#define ND_TABLES(REAL, SUFFIX)                                                                                       \
    template <>                                                                                                        \
    const SurrogateColumnsBlock<REAL> Blocks<REAL>::surrogate_columns[6] = {                                           \
        columns_single_exponential_##SUFFIX, columns_periodic_exponential_##SUFFIX, columns_box_##SUFFIX,              \
        columns_sigmoid_##SUFFIX,            columns_arctan_##SUFFIX,               columns_heaviside_##SUFFIX,        \
    };                                                                                                                 \
    template <>                                                                                                        \
    const ThresholdAdjointBlock<REAL> Blocks<REAL>::threshold_adjoint[2][3] = {                                        \
        {threshold_subtract_detached_##SUFFIX, threshold_direct_##SUFFIX, threshold_direct_##SUFFIX},                  \
        {threshold_subtract_##SUFFIX, threshold_zero_##SUFFIX, threshold_direct_##SUFFIX},                             \
    };                                                                                                                 \
    template <>                                                                                                        \
    const AddRowsBlock<REAL> Blocks<REAL>::add_rows = add_rows_##SUFFIX;                                               \
    template <>                                                                                                        \
    const AddRowsTogetherBlock<REAL> Blocks<REAL>::add_rows_together = add_rows_together_##SUFFIX;                     \
    template <>                                                                                                        \
    const SynapseBlocks<REAL>::Forward SynapseBlocks<REAL>::forward = synapse_forward_##SUFFIX;                        \
    template <>                                                                                                        \
    const SynapseBlocks<REAL>::Adjoint SynapseBlocks<REAL>::adjoint[2] = {synapse_adjoint_##SUFFIX,                    \
                                                                          synapse_adjoint_parameters_##SUFFIX};        \
    template <>                                                                                                        \
    const AdaptationBlocks<REAL>::Raise AdaptationBlocks<REAL>::raise = adaptation_raise_##SUFFIX;                     \
    template <>                                                                                                        \
    const AdaptationBlocks<REAL>::Forward AdaptationBlocks<REAL>::forward = adaptation_forward_##SUFFIX;               \
    template <>                                                                                                        \
    const AdaptationBlocks<REAL>::Adjoint AdaptationBlocks<REAL>::adjoint[2] = {                                       \
        adaptation_adjoint_##SUFFIX, adaptation_adjoint_parameters_##SUFFIX};
ND_TABLES(float, f32)
ND_TABLES(double, f64)
#undef ND_TABLES

}  // namespace nd::layer
