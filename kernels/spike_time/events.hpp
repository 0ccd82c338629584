// Input spikes of a batch, each sample's in the order in which they arrive: (time, input, slot).
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "cell.hpp"

namespace nd::spike_time {

struct Event {
    double time;
    std::int32_t input, slot;  // slot: position among the sample's inputs * slots
    bool operator<(const Event& other) const { return time != other.time ? time < other.time : slot < other.slot; }
};

class Events {
public:
    // times: [batch, inputs, slots], inf where there is no spike; later ones than t_max are left out.
    template <class Real>
    Events(const Real* times, std::int64_t batch, std::int64_t inputs, std::int64_t slots, double t_max, int threads)
        : first_(batch + 1, 0), t_max_(t_max) {
        const std::int64_t size = inputs * slots;
        const auto arrives = [&](Real time) {
            return time < std::numeric_limits<Real>::infinity() && static_cast<double>(time) <= t_max;
        };
#pragma omp parallel for schedule(static) num_threads(threads)
        for (std::int64_t b = 0; b < batch; ++b)
            first_[b + 1] = std::count_if(times + b * size, times + (b + 1) * size, arrives);
        for (std::int64_t b = 0; b < batch; ++b) first_[b + 1] += first_[b];
        events_.resize(first_[batch]);
#pragma omp parallel for schedule(static) num_threads(threads)
        for (std::int64_t b = 0; b < batch; ++b) {
            Event* next = events_.data() + first_[b];
            for (std::int64_t slot = 0; slot < size; ++slot) {
                const Real time = times[b * size + slot];
                if (arrives(time))
                    *next++ = {static_cast<double>(time), static_cast<std::int32_t>(slot / slots),
                               static_cast<std::int32_t>(slot)};
            }
            std::sort(events_.data() + first_[b], next);
        }
    }

    // One propagator per event for neurons that share their time constants.
    void share_steps(const Cell& cell, std::int64_t batch, int threads) {
        steps_.resize(events_.size());
#pragma omp parallel for schedule(static) num_threads(threads)
        for (std::int64_t b = 0; b < batch; ++b)
            for (std::int64_t e = 0; e < count(b); ++e) steps_[first_[b] + e] = step_after(until_next(b, e), cell);
    }

    std::int64_t count(std::int64_t b) const { return first_[b + 1] - first_[b]; }
    std::int64_t first(std::int64_t b) const { return first_[b]; }
    std::int64_t total() const { return first_.back(); }
    const Event& at(std::int64_t b, std::int64_t e) const { return events_[first_[b] + e]; }
    const Step& shared_step(std::int64_t b, std::int64_t e) const { return steps_[first_[b] + e]; }
    bool shares_steps() const { return !steps_.empty(); }
    // The end of the interval that event e starts.
    double end(std::int64_t b, std::int64_t e) const { return e + 1 < count(b) ? at(b, e + 1).time : t_max_; }
    double until_next(std::int64_t b, std::int64_t e) const { return end(b, e) - at(b, e).time; }

private:
    std::vector<std::int64_t> first_;
    std::vector<Event> events_;
    std::vector<Step> steps_;
    double t_max_;
};

}  // namespace nd::spike_time
