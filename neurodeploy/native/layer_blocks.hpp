// The inner loops of spiking layers, each over one block of one row, compiled for every choice and instruction set.
#pragma once

#include <cstdint>

namespace nd::layer {

// forward: potentials before the reset and spikes of one step; `v` carries the state.
template <class Real>
using ForwardBlock = void (*)(std::int64_t n, const Real* x, Real* v, const Real* decay, const Real* threshold,
                              const Real* gain, Real limit, Real v_min_before, Real v_min_after, Real* v_out,
                              Real* spikes);

// linearise: spikes of saved potentials, exactly as the forward pass had them, and the surrogate derivative.
template <class Real>
using LineariseBlock = void (*)(std::int64_t n, const Real* v, const Real* threshold, const Real* rate,
                                const Real* peak, Real inverse_width, Real scale, Real limit, Real* spikes,
                                Real* gradient);

// adjoint: one step of the backward scan. `p` is the adjoint of the state after the step, `current` that of the input
// current. A hard reset leaves 1 - min(spikes, most) of the potential: most is 1, or infinity for soft spikes.
// The reset path is what a spike does to the loss through the reset of its own neuron: kept, or left out.
#define ND_ADJOINT_ARGUMENTS(REAL)                                                                                    \
    std::int64_t n, const REAL *__restrict v, const REAL *__restrict spikes, const REAL *__restrict surrogate,         \
        const REAL *__restrict grad_spikes, const REAL *__restrict grad_v, const REAL *__restrict x,                   \
        const REAL *__restrict decay, const REAL *__restrict threshold, const REAL *__restrict gain,                   \
        REAL *__restrict p, REAL *__restrict current, REAL *__restrict grad_x, double *__restrict grad_decay,          \
        double *__restrict grad_threshold, double *__restrict grad_gain, REAL v_min_before, REAL v_min_after, REAL most

template <class Real>
using AdjointBlock = void (*)(ND_ADJOINT_ARGUMENTS(Real));

// surrogate_columns: (rate, peak) of surrogate_column for units that change from step to step.
template <class Real>
using SurrogateColumnsBlock = void (*)(std::int64_t n, const Real* unit, Real width, Real scale, Real* rate, Real* peak);

// threshold_adjoint: dL/d(threshold of this step). `level` is 1 where spikes move with the threshold they are compared
// with, 0 where only the amount that a reset subtracts counts. Runs before adjoint, with the same p.
template <class Real>
using ThresholdAdjointBlock = void (*)(std::int64_t n, const Real* v, const Real* spikes, const Real* surrogate,
                                       const Real* grad_spikes, const Real* threshold, const Real* p, Real v_min_after,
                                       Real most, Real level, Real* grad_threshold);

// The synaptic current: drive = current + (x + lateral) ; current = decay * drive.
template <class Real>
struct SynapseBlocks {
    using Forward = void (*)(std::int64_t n, const Real* x, const Real* lateral, const Real* decay, Real* current,
                             Real* drive);
    // `p` is the adjoint of the current after the step, on return that of the current before it, which is dL/dx.
    using Adjoint = void (*)(std::int64_t n, const Real* grad_current, const Real* decay, const Real* drive, Real* p,
                             Real* grad_x, double* grad_decay);
    static const Forward forward;
    static const Adjoint adjoint[2];  // [with the gradient of the decay]
};

// The adapting threshold: threshold = base + scale * b before the spikes, b = decay * b + (1 - decay) * spikes after.
template <class Real>
struct AdaptationBlocks {
    using Raise = void (*)(std::int64_t n, const Real* base, const Real* unit, const Real* scale, const Real* b,
                           Real* threshold, Real* raised_unit);
    using Forward = void (*)(std::int64_t n, const Real* spikes, const Real* decay, Real* b);
    // `p` is the adjoint of b after the step, on return that of b before it.
    using Adjoint = void (*)(std::int64_t n, const Real* grad_threshold, const Real* spikes, const Real* b,
                             const Real* decay, const Real* scale, Real* p, double* grad_base, double* grad_decay,
                             double* grad_scale);
    static const Raise raise;
    static const Forward forward;
    static const Adjoint adjoint[2];  // [with gradients of parameters]
};

// out = start + sum over the `count` rows named by `index` of value * matrix row, added in that order; rows have `stride`.
template <class Real>
using AddRowsBlock = void (*)(std::int64_t n, std::int64_t count, const std::int64_t* index, const Real* value,
                              const Real* matrix, std::int64_t stride, const Real* start, Real* out);

// The same for `samples` products at once, which then read every row once: row k of `values` has the terms of all samples
// (0 adds nothing; it is filled up to lateral_samples), and `out` a row of `out_stride` for each.
constexpr std::int64_t lateral_samples = 8;
template <class Real>
using AddRowsTogetherBlock = void (*)(std::int64_t n, std::int64_t samples, std::int64_t count,
                                      const std::int64_t* index, const Real* values, const Real* matrix,
                                      std::int64_t stride, const Real* start, Real* out, std::int64_t out_stride);

// The compiled blocks; enumerators of neuron.hpp and surrogate.hpp are the first index.
template <class Real>
struct Blocks {
    static const ForwardBlock<Real> forward[3][2];      // [reset][at most one spike]
    static const LineariseBlock<Real> linearise[6][2];  // [surrogate][at most one spike]
    static const AdjointBlock<Real> adjoint[2][3][2];   // [reset path kept][reset][with gradients of parameters]
    static const SurrogateColumnsBlock<Real> surrogate_columns[6];       // [surrogate]
    static const ThresholdAdjointBlock<Real> threshold_adjoint[2][3];  // [reset path kept][reset]
    static const AddRowsBlock<Real> add_rows;
    static const AddRowsTogetherBlock<Real> add_rows_together;
};

template <>
const ForwardBlock<float> Blocks<float>::forward[3][2];
template <>
const LineariseBlock<float> Blocks<float>::linearise[6][2];
template <>
const AdjointBlock<float> Blocks<float>::adjoint[2][3][2];
template <>
const SurrogateColumnsBlock<float> Blocks<float>::surrogate_columns[6];
template <>
const ThresholdAdjointBlock<float> Blocks<float>::threshold_adjoint[2][3];
template <>
const AddRowsBlock<float> Blocks<float>::add_rows;
template <>
const AddRowsTogetherBlock<float> Blocks<float>::add_rows_together;
template <>
const SynapseBlocks<float>::Forward SynapseBlocks<float>::forward;
template <>
const SynapseBlocks<float>::Adjoint SynapseBlocks<float>::adjoint[2];
template <>
const AdaptationBlocks<float>::Raise AdaptationBlocks<float>::raise;
template <>
const AdaptationBlocks<float>::Forward AdaptationBlocks<float>::forward;
template <>
const AdaptationBlocks<float>::Adjoint AdaptationBlocks<float>::adjoint[2];
template <>
const ForwardBlock<double> Blocks<double>::forward[3][2];
template <>
const LineariseBlock<double> Blocks<double>::linearise[6][2];
template <>
const AdjointBlock<double> Blocks<double>::adjoint[2][3][2];
template <>
const SurrogateColumnsBlock<double> Blocks<double>::surrogate_columns[6];
template <>
const ThresholdAdjointBlock<double> Blocks<double>::threshold_adjoint[2][3];
template <>
const AddRowsBlock<double> Blocks<double>::add_rows;
template <>
const AddRowsTogetherBlock<double> Blocks<double>::add_rows_together;
template <>
const SynapseBlocks<double>::Forward SynapseBlocks<double>::forward;
template <>
const SynapseBlocks<double>::Adjoint SynapseBlocks<double>::adjoint[2];
template <>
const AdaptationBlocks<double>::Raise AdaptationBlocks<double>::raise;
template <>
const AdaptationBlocks<double>::Forward AdaptationBlocks<double>::forward;
template <>
const AdaptationBlocks<double>::Adjoint AdaptationBlocks<double>::adjoint[2];

}  // namespace nd::layer
