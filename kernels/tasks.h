// Threads that never wait for a thread without work.
//
// OpenMP ends a loop when every thread has arrived. A thread whose core is busy with other work
// then delays all others, which spin and take that core's time. Here the caller and the helpers
// draw tasks from one counter, and the caller waits only for tasks that were drawn. So helpers
// without a core cost nothing. A helper without work spins for some microseconds, then sleeps.
#pragma once

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>

namespace portraitnet {

constexpr int TASKS = 16;

class Helpers {
 public:
  // Calls work(task) for every task on up to `threads` threads, including the calling thread.
  void run(int threads, const std::function<void(int)>& work) {
    std::unique_lock<std::mutex> only(busy_, std::try_to_lock);
    if (threads < 2 || !only) {  // a second, simultaneous caller gets no helpers
      for (int task = 0; task < TASKS; ++task) work(task);
      return;
    }
    for (int i = count_; i < threads - 1; ++i) std::thread([this, i] { help(i); }).detach();
    count_ = std::max(count_, threads - 1);
    work_ = &work;
    done_.store(0);
    const uint64_t round = (round_++ << 32) | uint64_t(threads) << 16;
    counter_.store(round);
    if (sleeping_.load() > 0) {
      std::lock_guard<std::mutex> lock(mutex_);
      wake_.notify_all();
    }
    while (draw(threads)) {
    }
    for (int spin = 0; done_.load() < TASKS; ++spin) spin < SPINS ? rest() : std::this_thread::yield();
  }

 private:
  static constexpr int SPINS = 4000;  // some 40 microseconds: the pause between two operators

  static void rest() {
#ifdef __x86_64__
    __builtin_ia32_pause();
#endif
  }

  // Does one task if one is left and the round has `min_threads` threads; returns whether it did.
  bool draw(int min_threads) {
    uint64_t counter = counter_.load();
    do {
      if (int(counter & 0xffff) >= TASKS || int(counter >> 16 & 0xffff) < min_threads)
        return false;
    } while (!counter_.compare_exchange_weak(counter, counter + 1));
    // The caller waits for drawn tasks, so `work_` belongs to this counter's round.
    (*work_)(int(counter & 0xffff));
    done_.fetch_add(1);
    return true;
  }

  void help(int number) {
    for (int spin = 0;;) {
      if (draw(number + 2)) {
        spin = 0;
      } else if (++spin < SPINS) {
        rest();
      } else {
        std::unique_lock<std::mutex> lock(mutex_);
        ++sleeping_;
        const uint64_t seen = counter_.load();
        if (int(seen & 0xffff) >= TASKS) wake_.wait(lock);
        --sleeping_;
        spin = 0;
      }
    }
  }

  std::mutex busy_, mutex_;
  std::condition_variable wake_;
  std::atomic<int> sleeping_{0}, done_{0};
  std::atomic<uint64_t> counter_{TASKS};  // round, threads (16 bits), next task (16 bits)
  const std::function<void(int)>* work_ = nullptr;
  uint64_t round_ = 0;
  int count_ = 0;
};

inline void parallel(int threads, const std::function<void(int)>& work) {
  // Never destroyed: helpers sleep in it until the process ends.
  static Helpers& helpers = *new Helpers;
  helpers.run(threads, work);
}

}  // namespace portraitnet
