// The inner loops of spiking layers. Templates say what is computed; the macros make one function of each instance, because
// function multiversioning works on plain functions only.
#include "layer_blocks.hpp"

#include "multiversion.hpp"
#include "neuron.hpp"
#include "surrogate.hpp"

namespace nd::layer {

template <class Real, Reset reset, bool single>
inline __attribute__((always_inline)) void forward_block(std::int64_t n, const Real* __restrict x, Real* __restrict v,
                                                         const Real* __restrict decay, const Real* __restrict threshold,
                                                         const Real* __restrict gain, Real limit, Real v_min_before,
                                                         Real v_min_after, Real* __restrict v_out,
                                                         Real* __restrict spikes) {
    for (std::int64_t i = 0; i < n; ++i) {
        const Real potential = clip(integrate(v[i], x[i], decay[i], gain[i]), v_min_before);
        Real count;
        if constexpr (single) {
            count = fire_single(potential, threshold[i]);
        } else {
            count = fire_multi(potential, threshold[i], limit);
        }
        v_out[i] = potential;
        spikes[i] = count;
        v[i] = clip(after_spikes<reset>(potential, count, threshold[i]), v_min_after);
    }
}

#define ND_FORWARD(NAME, REAL, RESET, SINGLE)                                                                         \
    ND_MULTIVERSION void NAME(std::int64_t n, const REAL* x, REAL* v, const REAL* decay, const REAL* threshold,        \
                              const REAL* gain, REAL limit, REAL v_min_before, REAL v_min_after, REAL* v_out,          \
                              REAL* spikes) {                                                                          \
        forward_block<REAL, RESET, SINGLE>(n, x, v, decay, threshold, gain, limit, v_min_before, v_min_after, v_out,   \
                                           spikes);                                                                    \
    }
ND_FORWARD(forward_subtract_single_f32, float, Reset::subtract, true)
ND_FORWARD(forward_subtract_multi_f32, float, Reset::subtract, false)
ND_FORWARD(forward_zero_single_f32, float, Reset::zero, true)
ND_FORWARD(forward_zero_multi_f32, float, Reset::zero, false)
ND_FORWARD(forward_none_single_f32, float, Reset::none, true)
ND_FORWARD(forward_none_multi_f32, float, Reset::none, false)
ND_FORWARD(forward_subtract_single_f64, double, Reset::subtract, true)
ND_FORWARD(forward_subtract_multi_f64, double, Reset::subtract, false)
ND_FORWARD(forward_zero_single_f64, double, Reset::zero, true)
ND_FORWARD(forward_zero_multi_f64, double, Reset::zero, false)
ND_FORWARD(forward_none_single_f64, double, Reset::none, true)
ND_FORWARD(forward_none_multi_f64, double, Reset::none, false)
#undef ND_FORWARD

template <class Real, Surrogate kind, bool single>
inline __attribute__((always_inline)) void linearise_block(std::int64_t n, const Real* __restrict v,
                                                           const Real* __restrict threshold,
                                                           const Real* __restrict rate, const Real* __restrict peak,
                                                           Real inverse_width, Real scale, Real limit,
                                                           Real* __restrict spikes, Real* __restrict gradient) {
    for (std::int64_t i = 0; i < n; ++i) {
        if constexpr (single) {
            spikes[i] = fire_single(v[i], threshold[i]);
        } else {
            spikes[i] = fire_multi(v[i], threshold[i], limit);
        }
        gradient[i] = surrogate_gradient<kind>(v[i] - threshold[i], rate[i], peak[i], inverse_width, scale);
    }
}

#define ND_LINEARISE(NAME, REAL, KIND, SINGLE)                                                                        \
    ND_MULTIVERSION void NAME(std::int64_t n, const REAL* v, const REAL* threshold, const REAL* rate,                  \
                              const REAL* peak, REAL inverse_width, REAL scale, REAL limit, REAL* spikes,              \
                              REAL* gradient) {                                                                        \
        linearise_block<REAL, KIND, SINGLE>(n, v, threshold, rate, peak, inverse_width, scale, limit, spikes,          \
                                            gradient);                                                                 \
    }
#define ND_LINEARISE_ALL(KIND)                                      \
    ND_LINEARISE(KIND##_multi_f32, float, Surrogate::KIND, false)   \
    ND_LINEARISE(KIND##_single_f32, float, Surrogate::KIND, true)   \
    ND_LINEARISE(KIND##_multi_f64, double, Surrogate::KIND, false)  \
    ND_LINEARISE(KIND##_single_f64, double, Surrogate::KIND, true)
ND_LINEARISE_ALL(single_exponential)
ND_LINEARISE_ALL(periodic_exponential)
ND_LINEARISE_ALL(box)
ND_LINEARISE_ALL(sigmoid)
ND_LINEARISE_ALL(arctan)
ND_LINEARISE_ALL(heaviside)
#undef ND_LINEARISE_ALL
#undef ND_LINEARISE

template <class Real, Reset reset, bool reset_path, bool parameters>
inline __attribute__((always_inline)) void adjoint_block(ND_ADJOINT_ARGUMENTS(Real)) {
    for (std::int64_t i = 0; i < n; ++i) {
        const Real s = spikes[i];
        const Real potential = v[i], carried_adjoint = p[i];
        const Real silent = Real(1) - (s > most ? most : s);
        Real after;  // potential after the reset, before the clip
        if constexpr (reset == Reset::subtract) after = potential - threshold[i] * s;
        if constexpr (reset == Reset::zero) after = potential * silent;
        if constexpr (reset == Reset::none) after = potential;
        const Real free = after > v_min_after ? carried_adjoint : Real(0);
        Real q = grad_spikes[i];  // dL/d(spikes), the reset path included where it is kept
        Real through = free;      // what reaches v besides the spikes
        if constexpr (reset_path && reset == Reset::subtract) q = q - threshold[i] * free;
        if constexpr (reset_path && reset == Reset::zero) q = q - potential * free;
        if constexpr (reset == Reset::zero) through = silent * free;
        const Real direct = surrogate[i] * q;
        const Real adjoint = direct + through + grad_v[i];
        const Real masked = potential > v_min_before ? adjoint : Real(0);
        if constexpr (parameters) {
            const Real carried = clip(after, v_min_after);
            grad_decay[i] += static_cast<double>(current[i]) * static_cast<double>(carried);
            Real spike_path = -direct;
            if constexpr (reset == Reset::subtract) spike_path = spike_path - s * free;
            grad_threshold[i] += static_cast<double>(spike_path);
            grad_gain[i] += static_cast<double>(masked) * static_cast<double>(x[i]);
        }
        grad_x[i] = gain[i] * masked;
        if constexpr (parameters) current[i] = masked;
        p[i] = decay[i] * masked;
    }
}

#define ND_ADJOINT(NAME, REAL, RESET, RESET_PATH, PARAMETERS)                                                         \
    ND_MULTIVERSION void NAME(ND_ADJOINT_ARGUMENTS(REAL)) {                                                            \
        adjoint_block<REAL, RESET, RESET_PATH, PARAMETERS>(n, v, spikes, surrogate, grad_spikes, grad_v, x, decay,     \
                                                           threshold, gain, p, current, grad_x, grad_decay,            \
                                                           grad_threshold, grad_gain, v_min_before, v_min_after,       \
                                                           most);                                                      \
    }
ND_ADJOINT(adjoint_subtract_f32, float, Reset::subtract, true, false)
ND_ADJOINT(adjoint_subtract_parameters_f32, float, Reset::subtract, true, true)
ND_ADJOINT(adjoint_zero_f32, float, Reset::zero, true, false)
ND_ADJOINT(adjoint_zero_parameters_f32, float, Reset::zero, true, true)
ND_ADJOINT(adjoint_subtract_detached_f32, float, Reset::subtract, false, false)
ND_ADJOINT(adjoint_subtract_detached_parameters_f32, float, Reset::subtract, false, true)
ND_ADJOINT(adjoint_zero_detached_f32, float, Reset::zero, false, false)
ND_ADJOINT(adjoint_zero_detached_parameters_f32, float, Reset::zero, false, true)
ND_ADJOINT(adjoint_none_f32, float, Reset::none, true, false)
ND_ADJOINT(adjoint_none_parameters_f32, float, Reset::none, true, true)
ND_ADJOINT(adjoint_subtract_f64, double, Reset::subtract, true, false)
ND_ADJOINT(adjoint_subtract_parameters_f64, double, Reset::subtract, true, true)
ND_ADJOINT(adjoint_zero_f64, double, Reset::zero, true, false)
ND_ADJOINT(adjoint_zero_parameters_f64, double, Reset::zero, true, true)
ND_ADJOINT(adjoint_subtract_detached_f64, double, Reset::subtract, false, false)
ND_ADJOINT(adjoint_subtract_detached_parameters_f64, double, Reset::subtract, false, true)
ND_ADJOINT(adjoint_zero_detached_f64, double, Reset::zero, false, false)
ND_ADJOINT(adjoint_zero_detached_parameters_f64, double, Reset::zero, false, true)
ND_ADJOINT(adjoint_none_f64, double, Reset::none, true, false)
ND_ADJOINT(adjoint_none_parameters_f64, double, Reset::none, true, true)
#undef ND_ADJOINT

template <>
const ForwardBlock<float> Blocks<float>::forward[3][2] = {
    {forward_subtract_multi_f32, forward_subtract_single_f32},
    {forward_zero_multi_f32, forward_zero_single_f32},
    {forward_none_multi_f32, forward_none_single_f32},
};
template <>
const LineariseBlock<float> Blocks<float>::linearise[6][2] = {
    {single_exponential_multi_f32, single_exponential_single_f32},
    {periodic_exponential_multi_f32, periodic_exponential_single_f32},
    {box_multi_f32, box_single_f32},
    {sigmoid_multi_f32, sigmoid_single_f32},
    {arctan_multi_f32, arctan_single_f32},
    {heaviside_multi_f32, heaviside_single_f32},
};
template <>
const AdjointBlock<float> Blocks<float>::adjoint[2][3][2] = {
    {{adjoint_subtract_detached_f32, adjoint_subtract_detached_parameters_f32},
     {adjoint_zero_detached_f32, adjoint_zero_detached_parameters_f32},
     {adjoint_none_f32, adjoint_none_parameters_f32}},
    {{adjoint_subtract_f32, adjoint_subtract_parameters_f32},
     {adjoint_zero_f32, adjoint_zero_parameters_f32},
     {adjoint_none_f32, adjoint_none_parameters_f32}},
};

template <>
const ForwardBlock<double> Blocks<double>::forward[3][2] = {
    {forward_subtract_multi_f64, forward_subtract_single_f64},
    {forward_zero_multi_f64, forward_zero_single_f64},
    {forward_none_multi_f64, forward_none_single_f64},
};
template <>
const LineariseBlock<double> Blocks<double>::linearise[6][2] = {
    {single_exponential_multi_f64, single_exponential_single_f64},
    {periodic_exponential_multi_f64, periodic_exponential_single_f64},
    {box_multi_f64, box_single_f64},
    {sigmoid_multi_f64, sigmoid_single_f64},
    {arctan_multi_f64, arctan_single_f64},
    {heaviside_multi_f64, heaviside_single_f64},
};
template <>
const AdjointBlock<double> Blocks<double>::adjoint[2][3][2] = {
    {{adjoint_subtract_detached_f64, adjoint_subtract_detached_parameters_f64},
     {adjoint_zero_detached_f64, adjoint_zero_detached_parameters_f64},
     {adjoint_none_f64, adjoint_none_parameters_f64}},
    {{adjoint_subtract_f64, adjoint_subtract_parameters_f64},
     {adjoint_zero_f64, adjoint_zero_parameters_f64},
     {adjoint_none_f64, adjoint_none_parameters_f64}},
};

}  // namespace nd::layer
