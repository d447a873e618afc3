// Activations with the batch innermost, from those with the batch outermost: [batch][features] to
// [features][batch]. PyTorch takes two to three times as long.
#include "tiles.h"

namespace {

constexpr int kRows = 8;  // at a time; more, powers of two apart, would evict each other from caches

template <typename T>
void transpose(int rows, int columns, const T* x, T* out) {
  for (int first = 0; first < rows; first += kRows) {
    const T* const from = x + int64_t{first} * columns;
    with_constant<kRows>(std::min(kRows, rows - first), [&](auto count) {
      for (int column = 0; column < columns; column++)
        for (int i = 0; i < count; i++)
          out[int64_t{column} * rows + first + i] = from[int64_t{i} * columns + column];
    });
  }
}

}  // namespace

#define DEFINE(T, NAME)                                                                          \
  extern "C" void transpose_##NAME(int rows, int columns, const T* x, T* out) {                  \
    transpose<T>(rows, columns, x, out);                                                         \
  }
DEFINE(float, float32)
DEFINE(double, float64)
