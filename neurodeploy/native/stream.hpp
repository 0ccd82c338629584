// Writing a row past the caches. Outputs larger than the caches are not read again soon; an ordinary store would first
// read the line it overwrites (one third more traffic). Call stream_fence() before another thread may read the rows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace nd {

template <class Real>
inline void stream_row(Real* destination, const Real* source, std::size_t count) {
#if defined(__SSE2__)
    char* to = reinterpret_cast<char*>(destination);
    const char* from = reinterpret_cast<const char*>(source);
    std::size_t bytes = count * sizeof(Real);
    const std::size_t head = (64 - reinterpret_cast<std::uintptr_t>(to) % 64) % 64;
    if (bytes < head + 64) {
        std::memcpy(to, from, bytes);
        return;
    }
    std::memcpy(to, from, head);
    to += head;
    from += head;
    bytes -= head;
    for (; bytes >= 64; bytes -= 64, to += 64, from += 64) {  // whole cache lines, so that write combining never splits
        for (int part = 0; part < 64; part += 16) {
            const __m128i value = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + part));
            _mm_stream_si128(reinterpret_cast<__m128i*>(to + part), value);
        }
    }
    std::memcpy(to, from, bytes);
#else
    std::memcpy(destination, source, count * sizeof(Real));
#endif
}

inline void stream_fence() {
#if defined(__SSE2__)
    _mm_sfence();
#endif
}

}  // namespace nd
