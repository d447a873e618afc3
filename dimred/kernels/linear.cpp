// Products with a sparse matrix: out = W x, and the gradients of x and of the entries of W.
//
// Activations lie [features][batch], so that an entry of W multiplies whole vectors. W lies twice
// in its plan (plan.py): by rows for the forward pass, where a row of the output stays in
// registers, and by columns for the backward pass, where a row of x and its gradient do.
#include <algorithm>
#include <type_traits>

#include "plan.h"
#include "vectors.h"

namespace {

// Thread t's part of n rows, where all parts have about as many entries.
void share(const int* starts, int n, int threads, int t, int* from, int* to) {
  const auto bound = [&](int i) {
    const int64_t entries = int64_t{starts[n]} * i / threads;
    const int* row = std::lower_bound(starts, starts + n, entries);
    return i == threads ? n : static_cast<int>(row - starts);
  };
  *from = bound(t);
  *to = bound(t + 1);
}

// N vectors of a row of the batch. The last may overlap the one before, so that it ends with the
// row.
template <typename T, int L, int N>
struct Tile {
  Vec<T, L> v[N];
  void read(const T* p, int last) {
    for (int j = 0; j < N; j++) v[j] = load<T, L>(p + (j == N - 1 ? last : j * L));
  }
  void write(T* p, int last) const {
    for (int j = 0; j < N; j++) store<T, L>(p + (j == N - 1 ? last : j * L), v[j]);
  }
};

template <typename T, int L, int N>
void forward_tile(const Plan& plan, int from, int to, const T* psi, const T* bias, const T* x,
                  T* out, int batch, int last) {
  for (int row = from; row < to; row++) {
    Tile<T, L, N> sums;
    for (int j = 0; j < N; j++) sums.v[j] = Vec<T, L>{} + (bias ? bias[row] : T(0));
    for (int k = plan.row_starts[row]; k < plan.row_starts[row + 1]; k++) {
      Tile<T, L, N> in;
      in.read(x + int64_t{plan.columns[k]} * batch, last);
#pragma GCC unroll 8
      for (int j = 0; j < N; j++) sums.v[j] += psi[k] * in.v[j];
    }
    sums.write(out + int64_t{row} * batch, last);
  }
}

// counted: numbers of the last vector that belong to the vector before it as well
template <typename T, int L, int N, bool kInput>
void backward_tile(const Plan& plan, int from, int to, const T* psi, const T* x, const T* grad,
                   T* dx, T* dpsi, int batch, int last, int counted, bool add) {
  for (int column = from; column < to; column++) {
    Tile<T, L, N> in, sums = {};
    in.read(x + int64_t{column} * batch, last);
    for (int i = 0; i < counted; i++) in.v[N - 1][i] = 0;
    for (int k = plan.column_starts[column]; k < plan.column_starts[column + 1]; k++) {
      const int place = plan.places[k];
      Tile<T, L, N> g;
      g.read(grad + int64_t{plan.rows[k]} * batch, last);
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

// Calls work(N, first column, last, counted) for tiles of at most `most` vectors that cover a
// batch.
template <int L, typename Work>
void cover(int batch, int most, Work work) {
  for (int c = 0; c < batch;) {
    const int left = batch - c, n = std::min(most, (left + L - 1) / L), end = std::min(left, n * L);
    // only the last tile can be ragged; where it has one vector alone, it begins earlier itself
    const int first = n == 1 ? c + end - L : c;
    const int last = n == 1 ? 0 : end - L;
    work(n, first, last, n * L - end);
    c += end;
  }
}

// Numbers of a register, or fewer for batches that are smaller.
template <typename T, typename Work>
void with_lanes(int batch, Work work) {
  constexpr int full = kLanes<T>;
  if (batch >= full) return work(std::integral_constant<int, full>());
  if (full > 4 && batch >= 4) return work(std::integral_constant<int, 4>());
  work(std::integral_constant<int, 1>());
}

// Calls work with n as a constant.
template <int Most, typename Work>
void with_constant(int n, Work work) {
  if constexpr (Most > 1) {
    if (n < Most) return with_constant<Most - 1>(n, work);
  }
  work(std::integral_constant<int, Most>());
}

constexpr int kForward = 8, kBackward = kRegisters == 32 ? 8 : 4;

template <typename T>
void forward(int R, int C, int batch, int entries, int threads, const int* p, const T* psi,
             const T* bias, const T* x, T* out) {
  const Plan plan(p, R, C, entries);
  threads = threads_for(int64_t{entries} * batch, threads);
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int t = 0; t < threads; t++) {
    int from, to;
    share(plan.row_starts, R, threads, t, &from, &to);
    with_lanes<T>(batch, [&](auto lanes) {
      constexpr int L = decltype(lanes)::value;
      cover<L>(batch, kForward, [&](int n, int first, int last, int) {
        with_constant<kForward>(n, [&](auto vectors) {
          forward_tile<T, L, decltype(vectors)::value>(plan, from, to, psi, bias, x + first,
                                                       out + first, batch, last);
        });
      });
    });
  }
}

template <typename T>
void backward(int R, int C, int batch, int entries, int threads, const int* p, const T* psi,
              const T* x, const T* grad, T* dx, T* dpsi) {
  const Plan plan(p, R, C, entries);
  threads = threads_for(2 * int64_t{entries} * batch, threads);
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int t = 0; t < threads; t++) {
    int from, to;
    share(plan.column_starts, C, threads, t, &from, &to);
    with_lanes<T>(batch, [&](auto lanes) {
      constexpr int L = decltype(lanes)::value;
      bool add = false;
      cover<L>(batch, kBackward, [&](int n, int first, int last, int counted) {
        with_constant<kBackward>(n, [&](auto vectors) {
          constexpr int N = decltype(vectors)::value;
          if (dx)
            backward_tile<T, L, N, true>(plan, from, to, psi, x + first, grad + first, dx + first,
                                         dpsi, batch, last, counted, add);
          else
            backward_tile<T, L, N, false>(plan, from, to, psi, x + first, grad + first, nullptr,
                                          dpsi, batch, last, counted, add);
        });
        add = true;
      });
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
    backward<T>(R, C, batch, entries, threads, plan, psi, x, grad, dx, dpsi);                      \
  }
DEFINE(float, float32)
DEFINE(double, float64)
