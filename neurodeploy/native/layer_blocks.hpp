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

// The compiled blocks; enumerators of neuron.hpp and surrogate.hpp are the first index.
template <class Real>
struct Blocks {
    static const ForwardBlock<Real> forward[3][2];      // [reset][at most one spike]
    static const LineariseBlock<Real> linearise[6][2];  // [surrogate][at most one spike]
    static const AdjointBlock<Real> adjoint[2][3][2];   // [reset path kept][reset][with gradients of parameters]
};

template <>
const ForwardBlock<float> Blocks<float>::forward[3][2];
template <>
const LineariseBlock<float> Blocks<float>::linearise[6][2];
template <>
const AdjointBlock<float> Blocks<float>::adjoint[2][3][2];
template <>
const ForwardBlock<double> Blocks<double>::forward[3][2];
template <>
const LineariseBlock<double> Blocks<double>::linearise[6][2];
template <>
const AdjointBlock<double> Blocks<double>::adjoint[2][3][2];

}  // namespace nd::layer
