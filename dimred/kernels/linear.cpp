// Products with a sparse matrix: out = W x, and the gradients of x and of the entries of W.
//
// Activations lie [features][batch], so that an entry of W multiplies whole vectors. W lies twice
// in its plan (plan.py): by rows for the forward pass, where a row of the output stays in
// registers, and by columns for the backward pass, where a row of x and its gradient do.
#include "plan.h"
#include "tiles.h"

namespace {

template <typename T, int L, int N>
void forward_tile(const Order& order, int from, int to, const T* psi, const T* bias, const T* x,
                  T* out, int batch, int last) {
  for (int row = from; row < to; row++) {
    Tile<T, L, N> sums;
    for (int j = 0; j < N; j++) sums.v[j] = Vec<T, L>{} + (bias ? bias[row] : T(0));
    for (int k = order.starts[row]; k < order.starts[row + 1]; k++) {
      Tile<T, L, N> in;
      in.read(x + int64_t{order.sources[k]} * batch, last);
#pragma GCC unroll 8
      for (int j = 0; j < N; j++) sums.v[j] += psi[k] * in.v[j];
    }
    sums.write(out + int64_t{row} * batch, last);
  }
}

template <typename T, int L, int N, bool kInput>
void backward_tile(const Order& order, int from, int to, const T* psi, const T* x, const T* grad,
                   T* dx, T* dpsi, int batch, int last, int counted, bool add) {
  for (int column = from; column < to; column++) {
    Tile<T, L, N> in, sums = {};
    in.read(x + int64_t{column} * batch, last);
    for (int i = 0; i < counted; i++) in.v[N - 1][i] = 0;
    for (int k = order.starts[column]; k < order.starts[column + 1]; k++) {
      const int place = order.places[k];
      Tile<T, L, N> g;
      g.read(grad + int64_t{order.sources[k]} * batch, last);
      Vec<T, L> products[2] = {};
#pragma GCC unroll 8
      for (int j = 0; j < N; j++) {
        if (kInput) sums.v[j] += psi[place] * g.v[j];
        products[j % 2] += in.v[j] * g.v[j];
      }
      const T total = sum<T, L>(products[0] + products[1]);
      dpsi[place] = add ? dpsi[place] + total : total;
    }
    if (kInput) sums.write(dx + int64_t{column} * batch, last);
  }
}

template <typename T>
void forward(int R, int C, int batch, int entries, int threads, const int* p, const T* psi,
             const T* bias, const T* x, T* out) {
  const Plan plan(p, R, C, 1, entries);
  threads = threads_for(int64_t{entries} * batch, threads);
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int t = 0; t < threads; t++) {
    int from, to;
    share(plan.forward, R, 1, threads, t, &from, &to);
    cover<T, kForward>(batch, [&](auto lanes, auto vectors, int first, int last, int) {
      constexpr int L = decltype(lanes)::value, N = decltype(vectors)::value;
      forward_tile<T, L, N>(plan.forward, from, to, psi, bias, x + first, out + first, batch,
                            last);
    });
  }
}

template <typename T, bool kInput>
void backward(int R, int C, int batch, int entries, int threads, const int* p, const T* psi,
              const T* x, const T* grad, T* dx, T* dpsi) {
  const Plan plan(p, R, C, 1, entries);
  threads = threads_for(2 * int64_t{entries} * batch, threads);
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int t = 0; t < threads; t++) {
    int from, to;
    share(plan.backward, C, 1, threads, t, &from, &to);
    cover<T, kBackward>(batch, [&](auto lanes, auto vectors, int first, int last, int counted) {
      constexpr int L = decltype(lanes)::value, N = decltype(vectors)::value;
      backward_tile<T, L, N, kInput>(plan.backward, from, to, psi, x + first, grad + first,
                                     kInput ? dx + first : nullptr, dpsi, batch, last, counted,
                                     first > 0);
    });
  }
}

}  // namespace

#define DEFINE(T, NAME)                                                                            \
  extern "C" void linear_forward_##NAME(int R, int C, int batch, int entries, int threads,         \
                                        const int* plan, const T* psi, const T* bias, const T* x,  \
                                        T* out) {                                                  \
    forward<T>(R, C, batch, entries, threads, plan, psi, bias, x, out);                            \
  }                                                                                                \
  extern "C" void linear_backward_##NAME(int R, int C, int batch, int entries, int threads,        \
                                         const int* plan, const T* psi, const T* x, const T* grad, \
                                         T* dx, T* dpsi) {                                         \
    (dx ? backward<T, true> : backward<T, false>)(R, C, batch, entries, threads, plan, psi, x,     \
                                                  grad, dx, dpsi);                                 \
  }
DEFINE(float, float32)
DEFINE(double, float64)
