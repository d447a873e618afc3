// Vectors of as many numbers as a register of this CPU holds, by the vector extensions of GCC and
// Clang.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__AVX512F__)
constexpr int kRegisterBytes = 64, kRegisters = 32;
#elif defined(__AVX__)
constexpr int kRegisterBytes = 32, kRegisters = 16;
#elif defined(__aarch64__)
constexpr int kRegisterBytes = 16, kRegisters = 32;
#else
constexpr int kRegisterBytes = 16, kRegisters = 16;
#endif

template <typename T>
constexpr int kLanes = kRegisterBytes / sizeof(T);

// L numbers side by side
template <typename T, int L>
struct Vector {
  typedef T type __attribute__((vector_size(L * sizeof(T))));
  typedef T anywhere __attribute__((vector_size(L * sizeof(T)), aligned(alignof(T)), may_alias));
};
template <typename T, int L>
using Vec = typename Vector<T, L>::type;

template <typename T, int L>
static inline Vec<T, L> load(const T* p) {
  return *reinterpret_cast<const typename Vector<T, L>::anywhere*>(p);
}

template <typename T, int L>
static inline void store(T* p, Vec<T, L> v) {
  *reinterpret_cast<typename Vector<T, L>::anywhere*>(p) = v;
}

// The first n numbers; zero elsewhere.
template <typename T, int L>
static inline Vec<T, L> load_some(const T* p, int n) {
  if (n == L) return load<T, L>(p);
  Vec<T, L> v = {};
  for (int i = 0; i < n; i++) v[i] = p[i];
  return v;
}

template <typename T, int L>
static inline void store_some(T* p, Vec<T, L> v, int n) {
  if (n == L) return store<T, L>(p, v);
  for (int i = 0; i < n; i++) p[i] = v[i];
}

// The sum, in a fixed order: halves are added until one number is left.
template <typename T, int L>
static inline T sum(Vec<T, L> v) {
  if constexpr (L == 1) {
    return v[0];
  } else {
    Vec<T, L / 2> halves[2];
    memcpy(halves, &v, sizeof v);
    return sum<T, L / 2>(halves[0] + halves[1]);
  }
}

// A thread for every 64K products, so that small layers do not wait for threads to wake up.
static inline int threads_for(int64_t products, int threads) {
  const int64_t enough = products / 65536 + 1;
  return enough < threads ? static_cast<int>(enough) : threads;
}
