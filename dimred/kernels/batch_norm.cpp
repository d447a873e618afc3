// BatchNorm in training, of activations that lie [channels][positions]: a channel at a time, so
// that it is read from memory once and lies in a core's cache from then on.
#include <algorithm>
#include <cmath>

#include "vectors.h"

namespace {

constexpr int kBlock = 1024;  // numbers that are added up in their own precision

// The sums of term(i, lanes) over n positions, each a vector, by blocks in double precision.
template <typename T, typename Term>
double add_up(int64_t n, Term term) {
  constexpr int L = kLanes<T>;
  double total = 0;
  for (int64_t block = 0; block < n; block += kBlock) {
    Vec<T, L> sums[4] = {};
    const int64_t end = std::min(n, block + kBlock);
    int64_t i = block;
    for (; i + 4 * L <= end; i += 4 * L)
      for (int j = 0; j < 4; j++) sums[j] += term(i + j * L, L);
    for (; i < end; i += L) sums[0] += term(i, static_cast<int>(std::min<int64_t>(L, end - i)));
    total += sum<T, L>((sums[0] + sums[1]) + (sums[2] + sums[3]));
  }
  return total;
}

template <typename T>
void forward(int channels, int n, int threads, double eps, const T* x, const T* weight,
             const T* bias, T* out, T* mean, T* variance, T* scale) {
  constexpr int L = kLanes<T>;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int c = 0; c < channels; c++) {
    const T* p = x + int64_t{c} * n;
    T* to = out + int64_t{c} * n;
    const T middle = mean[c] = add_up<T>(n, [&](int64_t i, int lanes) {
      return load_some<T, L>(p + i, lanes);
    }) / n;
    const double spread = add_up<T>(n, [&](int64_t i, int lanes) {
      Vec<T, L> distance = load_some<T, L>(p + i, lanes) - middle;
      for (int j = lanes; j < L; j++) distance[j] = 0;
      return distance * distance;
    }) / n;
    variance[c] = spread;
    const T factor = scale[c] = 1 / std::sqrt(spread + eps);
    const T slope = factor * weight[c], shift = bias[c] - middle * slope;
    for (int i = 0; i < n; i++) to[i] = p[i] * slope + shift;
  }
}

template <typename T>
void backward(int channels, int n, int threads, const T* grad, const T* x, const T* weight,
              const T* mean, const T* scale, T* dx, T* dweight, T* dbias) {
  constexpr int L = kLanes<T>;
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int c = 0; c < channels; c++) {
    const T *p = x + int64_t{c} * n, *g = grad + int64_t{c} * n;
    T* to = dx + int64_t{c} * n;
    const double total = add_up<T>(n, [&](int64_t i, int lanes) {
      return load_some<T, L>(g + i, lanes);
    });
    const double product = add_up<T>(n, [&](int64_t i, int lanes) {
      return load_some<T, L>(g + i, lanes) * (load_some<T, L>(p + i, lanes) - mean[c]);
    });
    dbias[c] = total;
    dweight[c] = product * scale[c];
    // dx = slope * (g - mean of g - (x - mean) * scale^2 * mean of g * (x - mean))
    const T slope = weight[c] * scale[c];
    const T tilt = -slope * scale[c] * scale[c] * product / n;
    const T shift = -slope * total / n - tilt * mean[c];
    for (int i = 0; i < n; i++) to[i] = g[i] * slope + p[i] * tilt + shift;
  }
}

}  // namespace

#define DEFINE(T, NAME)                                                                           \
  extern "C" void batch_norm_##NAME(int channels, int n, int threads, double eps, const T* x,     \
                                    const T* weight, const T* bias, T* out, T* mean, T* variance, \
                                    T* scale) {                                                   \
    forward<T>(channels, n, threads, eps, x, weight, bias, out, mean, variance, scale);           \
  }                                                                                               \
  extern "C" void batch_norm_backward_##NAME(int channels, int n, int threads, const T* grad,     \
                                             const T* x, const T* weight, const T* mean,          \
                                             const T* scale, T* dx, T* dweight, T* dbias) {       \
    backward<T>(channels, n, threads, grad, x, weight, mean, scale, dx, dweight, dbias);          \
  }
DEFINE(float, float32)
DEFINE(double, float64)
