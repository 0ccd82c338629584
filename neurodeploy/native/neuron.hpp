// The one definition of a neuron step in floating point; neurodeploy/neuron.py says the same in words.
//   v = decay*v + gain*x ; clip (before_threshold) ; s = fire(v) ; v = reset(v, s) ; clip (after_reset)
// A clip that is not wanted has v_min = -infinity. All functions are branch-free so that loops over them vectorise.
#pragma once

#include <cmath>

namespace nd {

enum class Reset { subtract = 0, zero = 1, none = 2 };

template <class Real>
inline Real integrate(Real v, Real x, Real decay, Real gain) {
    return decay * v + gain * x;
}

// NaN stays NaN: a broken input must not turn into a plausible potential.
template <class Real>
inline Real clip(Real v, Real v_min) {
    return v < v_min ? v_min : v;
}

template <class Real>
inline Real fire_single(Real v, Real threshold) {
    return v >= threshold ? Real(1) : Real(0);
}

// trunc(v / threshold) spikes, at most `limit` (infinity: no limit). threshold > 0.
template <class Real>
inline Real fire_multi(Real v, Real threshold, Real limit) {
    const Real count = std::trunc(v / threshold);
    const Real positive = v > Real(0) ? count : Real(0);
    return positive > limit ? limit : positive;
}

template <Reset reset, class Real>
inline Real after_spikes(Real v, Real spikes, Real threshold) {
    if constexpr (reset == Reset::subtract) return v - threshold * spikes;
    if constexpr (reset == Reset::zero) return spikes > Real(0) ? Real(0) : v;
    return v;
}

}  // namespace nd
