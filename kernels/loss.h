// The training loss on two-class logits with its gradients, in one pass over the pixels. losses/
// defines the terms. Here all terms are functions of m, the margin of class 1 over class 0.
#pragma once

#include "basics.h"

namespace portraitnet {

// e^x for x <= 0, with an error of 1e-8: 2^n times the Taylor series of the remainder.
template <class V>
V exponential(V x) {
  typedef int Bits __attribute__((vector_size(sizeof(V))));
  // The high part of log 2 has few bits, so that n times it is exact.
  constexpr double LOG2 = 0.693147180559945, LOG2_HIGH = 0.693359375;
  constexpr float ROUND = 3 << 22;  // a float above 2^23 is an integer, held in its lowest bits
  x = x < -87.f ? V{} - 87.f : x;
  const V shifted = x * float(1 / LOG2) + ROUND, n = shifted - ROUND;
  const V r = x - n * float(LOG2_HIGH) + n * float(LOG2_HIGH - LOG2);
  V sum = V{} + 1.f;
#pragma GCC unroll 7
  for (int k = 7; k > 0; --k) sum = sum * r * (1.f / k) + 1.f;
  return (V)((Bits)sum + ((Bits)shifted << 23));
}

// log(1 + e) for 0 <= e <= 1, with an error of 1e-8: the series of 2 atanh(e / (2 + e)).
template <class V>
V log_one_plus(V e) {
  const V z = e / (2.f + e), square = z * z;
  V sum = V{} + 1 / 15.f;
#pragma GCC unroll 7
  for (int k = 13; k > 0; k -= 2) sum = sum * square + 1.f / k;
  return 2.f * z * sum;
}

// Functions of a margin: -log of both probabilities, and the probability of class 1.
template <class V>
struct Odds {
  V cost0, cost1, person;
  explicit Odds(V margin) {
    const V e = exponential(margin > 0.f ? -margin : margin), larger = 1.f / (1.f + e);
    cost0 = (margin > 0.f ? margin : V{}) + log_one_plus(e);
    cost1 = cost0 - margin;
    person = margin > 0.f ? larger : e * larger;
  }
};

// `copies` times `photos` logits (2, height, width), the photometric copies last; labels (photos,
// height, width), 255 ignored. The width is a multiple of 8.
struct Loss {
  int64_t photos;
  int copies, height, width;
  float edge_weight, consistency_weight, temperature;
  enum Term { MASK, EDGE, CONSISTENCY, TOTAL, TERMS };

  // Number of pixels that are not ignored, at least one.
  double count(const float* labels, int threads) const {
    std::vector<int64_t> counts(TASKS);
    parallel(threads, [&](int task) {
      const Range range = task_range(photos * height * width, task);
      for (int64_t i = range.begin; i < range.end; ++i) counts[task] += labels[i] != 255;
    });
    int64_t total = 0;
    for (int64_t each : counts) total += each;
    return std::max<int64_t>(total, 1);
  }

  // Without edge labels the edge term and its gradient are left out.
  void run(const float* mask_logits, const float* edge_logits, const float* mask, const float* edge,
           float* terms, float* dmask, float* dedge, int threads) const {
    const int64_t plane = int64_t(height) * width, clean = 2 * plane * photos * (copies - 1);
    const double pixels = double(photos) * plane, mask_count = count(mask, threads);
    const double edge_count = edge ? count(edge, threads) : 1;
    // Weight of a pixel in the gradient of each term.
    const float mask_scale = 1 / mask_count, edge_scale = edge_weight / edge_count;
    const float consistency_scale = consistency_weight * temperature / pixels;
    std::vector<double> sums(TASKS * TOTAL);
    parallel(threads, [&](int task) {
      const Range range = task_range(photos * height, task);
      for (int64_t row = range.begin; row < range.end; ++row) {
        const int64_t start = (row / height * 2 * height + row % height) * width;
        float row_sums[TOTAL][LANES<Wide>] = {};
        each_vector(width, [&](auto vector, int column) {
          using V = decltype(vector);
          const int64_t label = row * width + column;
          const auto margin = [&](const float* logits, int64_t at) {
            return load<V>(logits + at + plane) - load<V>(logits + at);
          };
          const auto spread = [&](float* gradients, int64_t at, V value) {
            store(gradients + at, -value), store(gradients + at + plane, value);
          };
          const int64_t at = start + column, last = at + clean;  // first and last copy
          const V target = load<V>(mask + label), counts = target != 255.f ? V{} + 1.f : V{};
          const V m = margin(mask_logits, last);
          const Odds<V> odds(m);
          V dm = (odds.person - target) * counts * mask_scale;
          accumulate(row_sums[MASK], (odds.cost0 - target * m) * counts);
          if (copies == 2) {
            const V teacher = margin(mask_logits, at);
            const Odds<V> truth(teacher);
            accumulate(row_sums[MASK], (truth.cost0 - target * teacher) * counts);
            spread(dmask, at, (truth.person - target) * counts * mask_scale);
            if (consistency_weight) {
              const bool plain = temperature == 1;
              const V s = m / temperature, t = teacher / temperature;
              const Odds<V> soft = plain ? odds : Odds<V>(s), wanted = plain ? truth : Odds<V>(t);
              accumulate(row_sums[CONSISTENCY],
                         soft.cost0 - wanted.cost0 - wanted.person * (s - t));
              dm += (soft.person - wanted.person) * consistency_scale;
            }
          }
          spread(dmask, last, dm);
          if (!edge) return;
          // Focal loss: each class's cost times the squared probability of the other class.
          const V is_edge = load<V>(edge + label), valid = is_edge != 255.f ? V{} + 1.f : V{};
          const Odds<V> o(margin(edge_logits, last));
          const V p = o.person, q = 1.f - p;
          const V rest0 = (1.f - is_edge) * p * p * valid, rest1 = is_edge * q * q * valid;
          accumulate(row_sums[EDGE], rest0 * o.cost0 + rest1 * o.cost1);
          spread(dedge, last, (rest0 * (2.f * q * o.cost0 + p) -
                               rest1 * (2.f * p * o.cost1 + q)) * edge_scale);
          if (copies == 2) spread(dedge, at, V{});
        });
        for (int term = 0; term < TOTAL; ++term)
          for (float sum : row_sums[term]) sums[task * TOTAL + term] += sum;
      }
    });
    double total[TOTAL] = {};
    for (int task = 0; task < TASKS; ++task)
      for (int term = 0; term < TOTAL; ++term) total[term] += sums[task * TOTAL + term];
    terms[MASK] = total[MASK] / mask_count;
    terms[EDGE] = total[EDGE] / edge_count;
    terms[CONSISTENCY] = total[CONSISTENCY] / pixels * temperature * temperature;
    terms[TOTAL] =
        terms[MASK] + edge_weight * terms[EDGE] + consistency_weight * terms[CONSISTENCY];
  }
};

}  // namespace portraitnet
