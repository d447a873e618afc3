// Tiles: a few vectors of activations that lie side by side and stay in registers.
#pragma once
#include <algorithm>
#include <type_traits>

#include "vectors.h"

// Vectors of a tile, at most. The backward pass holds two tiles.
constexpr int kForward = 8, kBackward = kRegisters == 32 ? 8 : 4;

// N vectors. The last may overlap the one before, so that it ends with the numbers to cover.
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

// Numbers of a register, or fewer where there are not as many side by side.
template <typename T, typename Work>
void with_lanes(int numbers, Work work) {
  constexpr int full = kLanes<T>;
  if (numbers >= full) return work(std::integral_constant<int, full>());
  if (full > 4 && numbers >= 4) return work(std::integral_constant<int, 4>());
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

// Calls work(lanes, vectors, first, last, counted) for tiles of at most `Most` vectors that cover
// so many numbers. lanes and vectors are constants; last: where the last vector begins, relative to
// the first; counted: numbers of the last that belong to the vector before it as well.
template <typename T, int Most, typename Work>
void cover(int numbers, Work work) {
  with_lanes<T>(numbers, [&](auto lanes) {
    constexpr int L = decltype(lanes)::value;
    for (int first = 0; first < numbers;) {
      const int left = numbers - first, vectors = (left + L - 1) / L;
      int n = std::min(Most, vectors);
      // a ragged vector is no tile of its own: it overlaps another of the same tile
      if (vectors == n + 1 && left % L) n--;
      const int end = std::min(left, n * L);
      with_constant<Most>(n, [&](auto count) {
        work(lanes, count, first, end - L, count * L - end);
      });
      first += end;
    }
  });
}
