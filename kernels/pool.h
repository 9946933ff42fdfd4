// Memory of large tensors. A pool of its own avoids fragmentation: in the heap, small objects that
// live longer would lie between large tensors, and the gaps would be too small for the next ones.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <map>
#include <mutex>

namespace portraitnet {

class Pool {
 public:
  static constexpr size_t MIN_SIZE = 1 << 20;  // bytes of a tensor

  static Pool& the() {  // never destroyed, because tensors may outlive all other objects
    static Pool& pool = *new Pool;
    return pool;
  }
  // Null if the pool has no such block.
  void* take(size_t size) {
    std::lock_guard<std::mutex> lock(mutex_);
    size = (size + LINE - 1) / LINE * LINE;
    auto best = free_.end();
    for (auto it = free_.begin(); it != free_.end(); ++it)
      if (it->second >= size && (best == free_.end() || it->second < best->second)) best = it;
    if (best == free_.end()) return nullptr;
    const auto [start, room] = *best;
    free_.erase(best);
    if (room > size) free_[start + size] = room - size;
    taken_[start] = size;
    return start;
  }
  void give(void* block) {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto taken = taken_.find(static_cast<char*>(block));
    auto here = free_.insert(*taken).first;
    taken_.erase(taken);
    const auto next = std::next(here);
    if (next != free_.end() && here->first + here->second == next->first)
      here->second += next->second, free_.erase(next);
    if (here == free_.begin()) return;
    const auto before = std::prev(here);
    if (before->first + before->second == here->first)
      before->second += here->second, free_.erase(here);
  }

 private:
  static constexpr size_t LINE = 4096;

  // Reserves addresses for the machine's whole memory; unused pages take no memory.
  Pool() {
    const size_t size = size_t(sysconf(_SC_PHYS_PAGES)) * sysconf(_SC_PAGE_SIZE);
    void* start = mmap(nullptr, size, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (start == MAP_FAILED) return;
    madvise(start, size, MADV_HUGEPAGE);
    free_[static_cast<char*>(start)] = size;
  }

  std::mutex mutex_;
  std::map<char*, size_t> free_, taken_;
};

}  // namespace portraitnet
