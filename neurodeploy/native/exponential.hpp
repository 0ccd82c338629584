// exp(x) for x <= 0, the same bits on every CPU and vectorisable (libm's differs between CPUs and does not vectorise).
// x = n ln2 + r with |r| <= ln2/2, Taylor polynomial in r (float: degree 7, error 5e-9; double: degree 13, 4e-18), then
// 2^n through the exponent bits. Below the smallest normal number the result is 0.
#pragma once

#include <cstdint>
#include <cstring>

namespace nd {

inline float exp_nonpositive(float x) {
    const float lowest = -87.0f;
    const float y = x < lowest ? lowest : x;
    const float magic = 12582912.0f;  // 1.5 * 2^23: adding it leaves the rounded integer in the low mantissa bits
    const float shifted = y * 1.44269504088896341f + magic;
    const float n = shifted - magic;
    const float r = (y - n * 0.693359375f) - n * -2.12194440e-4f;
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    std::uint32_t bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 127u) << 23;
    float power;
    std::memcpy(&power, &bits, sizeof power);
    return x < lowest ? 0.0f : p * power;
}

inline double exp_nonpositive(double x) {
    const double lowest = -708.0;
    const double y = x < lowest ? lowest : x;
    const double magic = 6755399441055744.0;  // 1.5 * 2^52
    const double shifted = y * 1.4426950408889634074 + magic;
    const double n = shifted - magic;
    const double r = (y - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;
    double p = 1.0 / 6227020800.0;
    p = p * r + 1.0 / 479001600.0;
    p = p * r + 1.0 / 39916800.0;
    p = p * r + 1.0 / 3628800.0;
    p = p * r + 1.0 / 362880.0;
    p = p * r + 1.0 / 40320.0;
    p = p * r + 1.0 / 5040.0;
    p = p * r + 1.0 / 720.0;
    p = p * r + 1.0 / 120.0;
    p = p * r + 1.0 / 24.0;
    p = p * r + 1.0 / 6.0;
    p = p * r + 0.5;
    p = p * r + 1.0;
    p = p * r + 1.0;
    std::uint64_t bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    bits = (bits + 1023u) << 52;
    double power;
    std::memcpy(&power, &bits, sizeof power);
    return x < lowest ? 0.0 : p * power;
}

}  // namespace nd
