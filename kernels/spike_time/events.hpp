// Input spikes of a batch, each sample's in the order in which they arrive: (time, input, slot).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "cell.hpp"
#include "multiversion.hpp"

namespace nd::spike_time {

struct Event {
    double time;
    std::int32_t input, slot;  // slot: position among the sample's inputs * slots
    bool operator<(const Event& other) const { return time != other.time ? time < other.time : slot < other.slot; }
};

// Propagators over `length[e]` each.
ND_MULTIVERSION static void steps_over(const Cell& cell, std::int64_t count, const double* __restrict length,
                                       double* __restrict membrane, double* __restrict synapse,
                                       double* __restrict transfer) {
    const double rate_mem = cell.rate_mem, rate_syn = cell.rate_syn, slow = cell.slow_rate, gap = cell.difference;
    for (std::int64_t e = 0; e < count; ++e) {
        const Step step = step_after(length[e], rate_mem, rate_syn, slow, gap);
        membrane[e] = step.membrane;
        synapse[e] = step.synapse;
        transfer[e] = step.transfer;
    }
}

class Events {
public:
    // times: [batch, inputs, slots], inf where there is no spike; later ones than t_max are left out.
    template <class Real>
    Events(const Real* times, std::int64_t batch, std::int64_t inputs, std::int64_t slots, double t_max, int threads)
        : first_(batch + 1, 0), t_max_(t_max) {
        const std::int64_t size = inputs * slots;
        const Real last = last_before(static_cast<Real>(t_max));
#pragma omp parallel for schedule(static) num_threads(threads)
        for (std::int64_t b = 0; b < batch; ++b) first_[b + 1] = arriving(times + b * size, size, last);
        for (std::int64_t b = 0; b < batch; ++b) first_[b + 1] += first_[b];
        events_.resize(first_[batch]);
#pragma omp parallel for schedule(static) num_threads(threads)
        for (std::int64_t b = 0; b < batch; ++b) {
            Event* next = events_.data() + first_[b];
            const Real* sample = times + b * size;
            for (std::int64_t start = 0; start < size; start += chunk) {  // most slots are empty
                const std::int64_t end = std::min(start + chunk, size);
                if (arriving(sample + start, end - start, last) == 0) continue;
                for (std::int64_t slot = start; slot < end; ++slot)
                    if (sample[slot] <= last)
                        *next++ = {static_cast<double>(sample[slot]), static_cast<std::int32_t>(slot / slots),
                                   static_cast<std::int32_t>(slot)};
            }
            std::sort(events_.data() + first_[b], next);
        }
    }

    // One propagator per event for neurons that share their time constants.
    void share_steps(const Cell& cell, std::int64_t batch, int threads) {
        for (std::vector<double>* values : {&length_, &membrane_, &synapse_, &transfer_}) values->resize(total());
#pragma omp parallel for schedule(static) num_threads(threads)
        for (std::int64_t b = 0; b < batch; ++b) {
            for (std::int64_t e = 0; e < count(b); ++e) length_[first_[b] + e] = until_next(b, e);
            steps_over(cell, count(b), length_.data() + first_[b], membrane_.data() + first_[b],
                       synapse_.data() + first_[b], transfer_.data() + first_[b]);
        }
    }

    std::int64_t count(std::int64_t b) const { return first_[b + 1] - first_[b]; }
    std::int64_t first(std::int64_t b) const { return first_[b]; }
    std::int64_t total() const { return first_.back(); }
    const Event& at(std::int64_t b, std::int64_t e) const { return events_[first_[b] + e]; }
    Step shared_step(std::int64_t b, std::int64_t e) const {
        const std::int64_t at = first_[b] + e;
        return {membrane_[at], synapse_[at], transfer_[at]};
    }
    bool shares_steps() const { return !membrane_.empty(); }
    // The end of the interval that event e starts.
    double end(std::int64_t b, std::int64_t e) const { return e + 1 < count(b) ? at(b, e + 1).time : t_max_; }
    double until_next(std::int64_t b, std::int64_t e) const { return end(b, e) - at(b, e).time; }

private:
    static constexpr std::int64_t chunk = 32;

    // The largest finite number that is not above t_max.
    template <class Real>
    Real last_before(Real rounded) const {
        const Real below = std::nextafter(rounded, -std::numeric_limits<Real>::infinity());
        return static_cast<double>(rounded) > t_max_ || rounded == std::numeric_limits<Real>::infinity() ? below : rounded;
    }

    template <class Real>
    static std::int64_t arriving(const Real* times, std::int64_t count, Real last) {
        std::int32_t sum = 0;
        for (std::int64_t slot = 0; slot < count; ++slot) sum += times[slot] <= last;
        return sum;
    }

    std::vector<std::int64_t> first_;
    std::vector<Event> events_;
    std::vector<double> length_, membrane_, synapse_, transfer_;  // of each event, if shared
    double t_max_;
};

}  // namespace nd::spike_time
