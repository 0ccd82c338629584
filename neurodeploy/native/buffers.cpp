// Large buffers that are used again. Fresh memory costs a page fault per page, several times the kernel that fills it;
// a buffer released by its last tensor is kept here for the next one. What the pool holds, used and free together, stays
// below one and a half times the largest amount that was ever in use at once.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/vector.h>

#include <cstdlib>
#include <map>
#include <mutex>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "registry.hpp"

namespace nd::buffers {
namespace {

namespace nb = nanobind;

constexpr std::size_t page = 2 << 20;  // huge pages where the system grants them: 512 times fewer faults

struct Block {
    void* data;
    std::size_t size;
};

class Pool {
public:
    Block acquire(std::size_t bytes) {
        const std::size_t size = (bytes + page - 1) / page * page;
        const std::lock_guard<std::mutex> lock(mutex_);
        const auto found = free_.lower_bound(size);
        if (found != free_.end() && found->first <= size + size / 4) {
            const Block block{found->second, found->first};
            free_.erase(found);
            free_bytes_ -= block.size;
            use(block.size);
            return block;
        }
        while (!free_.empty() && used_bytes_ + free_bytes_ + size > peak_bytes_ + peak_bytes_ / 2) drop(free_.begin());
        void* data = std::aligned_alloc(page, size);
        if (!data) throw std::bad_alloc();
#if defined(__linux__)
        madvise(data, size, MADV_HUGEPAGE);
#endif
        use(size);
        return {data, size};
    }

    void release(Block block) {
        const std::lock_guard<std::mutex> lock(mutex_);
        used_bytes_ -= block.size;
        free_bytes_ += block.size;
        free_.emplace(block.size, block.data);
    }

    void empty() {
        const std::lock_guard<std::mutex> lock(mutex_);
        while (!free_.empty()) drop(free_.begin());
        peak_bytes_ = used_bytes_;
    }

    std::pair<std::size_t, std::size_t> bytes() {
        const std::lock_guard<std::mutex> lock(mutex_);
        return {used_bytes_, free_bytes_};
    }

private:
    void use(std::size_t size) {
        used_bytes_ += size;
        if (used_bytes_ > peak_bytes_) peak_bytes_ = used_bytes_;
    }

    void drop(std::multimap<std::size_t, void*>::iterator block) {
        free_bytes_ -= block->first;
        std::free(block->second);
        free_.erase(block);
    }

    std::mutex mutex_;
    std::multimap<std::size_t, void*> free_;
    std::size_t used_bytes_ = 0, free_bytes_ = 0, peak_bytes_ = 0;
};

// Never destroyed: tensors may outlive the static objects of this library.
Pool& pool() {
    static Pool* instance = new Pool;
    return *instance;
}

nb::ndarray<nb::pytorch> tensor(const std::vector<std::size_t>& shape, bool is_double) {
    std::size_t bytes = is_double ? sizeof(double) : sizeof(float);
    for (const std::size_t extent : shape) bytes *= extent;
    Block* block = new Block(pool().acquire(bytes));
    // The tensor's storage owns the capsule, so the buffer comes back when the last view, or autograd, lets go of it.
    nb::capsule owner(block, [](void* pointer) noexcept {
        Block* released = static_cast<Block*>(pointer);
        pool().release(*released);
        delete released;
    });
    return nb::ndarray<nb::pytorch>(block->data, shape.size(), shape.data(), owner, nullptr,
                                    is_double ? nb::dtype<double>() : nb::dtype<float>());
}

void bind(nb::module_& module) {
    module.def("tensor", tensor, nb::arg("shape"), nb::arg("is_double"));
    module.def("used_bytes", [] { return pool().bytes().first; });
    module.def("free_bytes", [] { return pool().bytes().second; });
    module.def("empty", [] { pool().empty(); });
}

const Registration registration{"buffers", bind};

}  // namespace
}  // namespace nd::buffers
