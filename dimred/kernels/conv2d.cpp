// Convolutions with sparse filters, and the gradients of their input and of the filters' entries.
//
// Activations lie [channels][height][width][batch]. A tile of the batch, as wide as a register, is
// copied into padded scratch memory, where an entry of a filter multiplies whole vectors at a
// constant distance from the output: neither borders nor strides are seen by the inner loops. Of a
// batch that is smaller than a register, pixels lie side by side in one.
#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "plan.h"
#include "vectors.h"

namespace {

// as kernels.functions.Geometry
struct Geometry {
  int batch, inputs, height, width, outputs, out_height, out_width;
  int kernel[2], stride[2], padding[2], dilation[2];
};

struct Free {
  void operator()(void* p) const { free(p); }
};
template <typename T>
using Memory = std::unique_ptr<T, Free>;

// Uninitialised memory for n numbers and one vector more, aligned for vectors.
template <typename T>
Memory<T> memory(int64_t n) {
  const size_t bytes = (n * sizeof(T) / kRegisterBytes + 2) * kRegisterBytes;
  void* const found = aligned_alloc(kRegisterBytes, bytes);
  if (!found) throw std::bad_alloc();
  return Memory<T>(static_cast<T*>(found));
}

// Where the vectors of a row of pixels lie in activations, and how many numbers they have.
struct Row {
  std::vector<int> offsets, lanes;
  int vectors() const { return static_cast<int>(offsets.size()); }
};

// A tile of the batch: `count` columns. In scratch memory each pixel has `each` numbers, whole
// vectors or, side by side, all of a small batch, where vectors run over the pixels of a row.
template <typename T>
struct Columns {
  int first, count, each;
  bool side_by_side;

  Row row(int pixels, int step) const {
    constexpr int L = kLanes<T>;
    const int all = side_by_side ? pixels * each : each;
    Row row;
    for (int pixel = 0; pixel < (side_by_side ? 1 : pixels); pixel++) {
      for (int from = 0; from < all; from += L) {
        row.offsets.push_back(pixel * step + from);
        row.lanes.push_back(std::min(L, std::max(0, (side_by_side ? all : count) - from)));
      }
    }
    return row;
  }
};

// Tiles of the batch, and parts of the channels where there are fewer tiles than threads. Tiles are
// up to four vectors wide, as memory is faster where more of a pixel is used; but so narrow that
// what an output needs of all channels fits into a core's cache.
template <typename T>
struct Split {
  int batch, tiles, parts, width;
  bool side_by_side;
  Split(int batch, int channels, int threads, bool contiguous)
      : batch(batch), side_by_side(contiguous && batch < kLanes<T>) {
    const int vectors = (batch + kLanes<T> - 1) / kLanes<T>;
    const int widest = std::max(1, std::min(4, 256 / channels));
    const int wanted = std::max((vectors + widest - 1) / widest, std::min(threads, vectors));
    width = (vectors + wanted - 1) / wanted;
    tiles = (vectors + width - 1) / width;
    parts = (threads + tiles - 1) / tiles;
  }
  Columns<T> columns(int tile) const {
    const int first = tile * width * kLanes<T>;
    return {first, std::min(batch - first, width * kLanes<T>),
            side_by_side ? batch : width * kLanes<T>, side_by_side};
  }
};

// Copies rows of pixels into scratch memory [channels][rows][phases][pixels of a phase], with zeros
// around. Phase p of a row has its pixels p, p + phases, p + 2 * phases, ...
template <typename T>
struct Scratch {
  int height, phases, pixels;  // of a phase
  int64_t row, channel;        // sizes
  int each;
  Scratch(int height, int width, int phases, int each)
      : height(height), phases(phases), pixels((width + phases - 1) / phases), each(each) {
    row = int64_t{phases} * pixels * each;
    channel = row * height;
  }
  int64_t at(int c, int y, int x) const {
    return c * channel + y * row + (int64_t{x % phases} * pixels + x / phases) * each;
  }
  void fill(const T* in, int channels, int in_height, int in_width, int top, int left, int batch,
            const Columns<T>& columns, T* out) const {
    std::fill_n(out + channels * channel, kLanes<T>, T(0));  // what the last vector reads too much
    for (int c = 0; c < channels; c++) {
      T* to = out + c * channel;
      std::fill_n(to, top * row, T(0));
      for (int y = 0; y < in_height; y++) {
        const T* from = in + (int64_t{c} * in_height + y) * in_width * batch + columns.first;
        fill_row(from, in_width, left, batch, columns, to + (y + top) * row);
      }
      std::fill(to + (top + in_height) * row, to + channel, T(0));
    }
  }

 private:
  void fill_row(const T* in, int in_width, int left, int batch, const Columns<T>& columns,
                T* out) const {
    for (int phase = 0; phase < phases; phase++) {
      // pixels of this phase that the image has
      const int from = left > phase ? (left - phase + phases - 1) / phases : 0;
      const int all = (left + in_width - phase + phases - 1) / phases, to = std::max(from, all);
      T* at = out + int64_t{phase} * pixels * each;
      std::fill(at, at + from * each, T(0));
      std::fill(at + to * each, at + pixels * each, T(0));
      const T* p = in + (int64_t{from} * phases + phase - left) * batch;
      for (int x = from; x < to; x++, p += int64_t{phases} * batch) {
        memcpy(at + x * each, p, columns.count * sizeof(T));
        std::fill(at + x * each + columns.count, at + (x + 1) * each, T(0));
      }
    }
  }
};

// A list of entries: what each multiplies, relative to the output, and by which number.
template <typename T>
struct Entries {
  const int* offsets;
  const T* values;
  int count;
};

// Rows of activations: the first, their distance, and their vectors.
template <typename T>
struct Place {
  T* p;
  int64_t row;
  const int *offsets, *lanes;
};

// Y rows of X vectors of the output.
template <typename T, int Y, int X>
void forward_tile(const Entries<T>& entries, const T* in, int64_t in_row, T bias,
                  const Place<T>& out) {
  constexpr int L = kLanes<T>;
  Vec<T, L> sums[Y * X];
  for (int i = 0; i < Y * X; i++) sums[i] = Vec<T, L>{} + bias;
  for (int k = 0; k < entries.count; k++) {
    const T* at = in + entries.offsets[k];
#pragma GCC unroll 16
    for (int i = 0; i < Y * X; i++)
      sums[i] += entries.values[k] * load<T, L>(at + i / X * in_row + i % X * L);
  }
  for (int i = 0; i < Y * X; i++)
    store_some<T, L>(out.p + i / X * out.row + out.offsets[i % X], sums[i], out.lanes[i % X]);
}

// Y rows of X vectors of the input: their gradient, and products for those of the entries.
template <typename T, int Y, int X>
void backward_tile(const Entries<T>& entries, const T* grad, int64_t grad_row,
                   const Place<const T>& in, T* dx, T* products) {
  constexpr int L = kLanes<T>;
  Vec<T, L> x[Y * X], sums[Y * X] = {};
  for (int i = 0; i < Y * X; i++)
    x[i] = load_some<T, L>(in.p + i / X * in.row + in.offsets[i % X], in.lanes[i % X]);
  for (int k = 0; k < entries.count; k++) {
    const T* at = grad + entries.offsets[k];
    Vec<T, L> both[2] = {load<T, L>(products + int64_t{k} * L), {}};
#pragma GCC unroll 8
    for (int i = 0; i < Y * X; i++) {
      const Vec<T, L> g = load<T, L>(at + i / X * grad_row + i % X * L);
      sums[i] += entries.values[k] * g;
      both[i % 2] += x[i] * g;
    }
    store<T, L>(products + int64_t{k} * L, both[0] + both[1]);
  }
  if (!dx) return;
  for (int i = 0; i < Y * X; i++)
    store_some<T, L>(dx + i / X * in.row + in.offsets[i % X], sums[i], in.lanes[i % X]);
}

// Calls work.tile<Y, X>(y, x) for tiles that cover an image of rows of vectors, of at most `Most`
// vectors each: as wide as possible, then as high.
template <int Most, typename Work>
struct Cover {
  Work work;
  int rows, vectors;
  template <int Y, int X>
  void column(int x, int y = 0) {
    for (; y + Y <= rows; y += Y) work.template operator()<Y, X>(y, x);
    if constexpr (Y > 1) column<Y / 2, X>(x, y);
  }
  template <int X>
  void from(int x) {
    for (; x + X <= vectors; x += X) column<Most / X, X>(x);
    if constexpr (X > 1) from<X / 2>(x);
  }
};

constexpr int kForward = kRegisters / 2, kBackward = kRegisters / 4, kLongest = 8;

// -- forward --------------------
template <typename T>
struct ForwardTiles {
  const Geometry& g;
  const Row& vectors;
  const std::vector<int>& offsets;
  const Plan& plan;
  const T *psi, *bias, *scratch;
  int64_t in_row;
  T* out;
  int from, to;

  template <int Y, int X>
  void operator()(int y, int x) {
    const int64_t row = int64_t{g.out_width} * g.batch;
    for (int c = from; c < to; c++) {
      const int start = plan.row_starts[c], count = plan.row_starts[c + 1] - start;
      const Entries<T> entries = {offsets.data() + start, psi + start, count};
      const Place<T> place = {out + (int64_t{c} * g.out_height + y) * row, row,
                              &vectors.offsets[x], &vectors.lanes[x]};
      forward_tile<T, Y, X>(entries, scratch + y * in_row + int64_t{x} * kLanes<T>, in_row,
                            bias ? bias[c] : T(0), place);
    }
  }
};

template <typename T>
void forward(const Geometry& g, int entries, int threads, const int* p, const T* psi, const T* bias,
             const T* x, T* out) {
  const int window = g.kernel[0] * g.kernel[1];
  const Plan plan(p, g.outputs, g.inputs * window, entries);
  threads = threads_for(int64_t{entries} * g.batch * g.out_height * g.out_width, threads);
  const Split<T> split(g.batch, g.inputs, threads, true);
  const Scratch<T> shape(g.height + 2 * g.padding[0], g.width + 2 * g.padding[1], g.stride[1],
                         split.columns(0).each);
  std::vector<int> offsets(entries);
  for (int k = 0; k < entries; k++) {
    const int channel = plan.columns[k] / window, at = plan.columns[k] % window;
    offsets[k] = static_cast<int>(shape.at(channel, at / g.kernel[1] * g.dilation[0],
                                           at % g.kernel[1] * g.dilation[1]));
  }
#pragma omp parallel num_threads(threads)
  {
    const Memory<T> scratch = memory<T>(g.inputs * shape.channel);
#pragma omp for schedule(static)
    for (int i = 0; i < split.tiles * split.parts; i++) {
      const Columns<T> columns = split.columns(i / split.parts);
      const Row vectors = columns.row(g.out_width, g.batch);
      shape.fill(x, g.inputs, g.height, g.width, g.padding[0], g.padding[1], g.batch, columns,
                 scratch.get());
      const int part = i % split.parts;
      ForwardTiles<T> work = {g, vectors, offsets, plan, psi, bias, scratch.get(),
                              shape.row * g.stride[0], out + columns.first,
                              g.outputs * part / split.parts,
                              g.outputs * (part + 1) / split.parts};
      Cover<kForward, ForwardTiles<T>>{work, g.out_height, vectors.vectors()}
          .template from<kLongest>(0);
    }
  }
}

// -- backward --------------------
int floor_div(int a, int b) { return a / b - (a % b < 0); }

// The entries in the order in which the backward pass needs them. Pixels of the input whose
// positions have the same remainders by the strides form a class: the same entries reach them.
template <typename T>
struct Backward {
  const Geometry& g;
  int top, left;  // zeros above the gradient of the output and left of it
  Scratch<T> shape;
  std::vector<int> starts, offsets, places;  // starts: by class and channel of the input
  std::vector<T> values;

  static int margin(const Geometry& g, int d) {
    const int reach = (g.kernel[d] - 1) * g.dilation[d] - g.padding[d];
    return std::max(0, -floor_div(-reach, g.stride[d]));
  }
  static int extent(const Geometry& g, int d, int in, int out) {
    return margin(g, d) + std::max(out, (in - 1 + g.padding[d]) / g.stride[d] + 1);
  }
  Backward(const Geometry& g, const Plan& plan, int entries, int each, const T* psi)
      : g(g),
        top(margin(g, 0)),
        left(margin(g, 1)),
        shape(extent(g, 0, g.height, g.out_height), extent(g, 1, g.width, g.out_width), 1, each) {
    starts.reserve(g.stride[0] * g.stride[1] * g.inputs + 1);
    offsets.reserve(entries);
    places.reserve(entries);
    values.reserve(entries);
    for (int y = 0; y < g.stride[0]; y++)
      for (int x = 0; x < g.stride[1]; x++)
        for (int c = 0; c < g.inputs; c++) add(plan, psi, y, x, c);
    starts.push_back(static_cast<int>(offsets.size()));
  }
  void add(const Plan& plan, const T* psi, int y, int x, int channel) {
    starts.push_back(static_cast<int>(offsets.size()));
    for (int ky = 0; ky < g.kernel[0]; ky++) {
      const int from_y = y + g.padding[0] - ky * g.dilation[0];
      const int dy = floor_div(from_y, g.stride[0]);
      if (from_y != dy * g.stride[0]) continue;
      for (int kx = 0; kx < g.kernel[1]; kx++) {
        const int from_x = x + g.padding[1] - kx * g.dilation[1];
        const int dx = floor_div(from_x, g.stride[1]);
        if (from_x != dx * g.stride[1]) continue;
        const int column = (channel * g.kernel[0] + ky) * g.kernel[1] + kx;
        for (int k = plan.column_starts[column]; k < plan.column_starts[column + 1]; k++) {
          offsets.push_back(static_cast<int>(shape.at(plan.rows[k], top + dy, left + dx)));
          places.push_back(plan.places[k]);
          values.push_back(psi[plan.places[k]]);
        }
      }
    }
  }
};

template <typename T>
struct BackwardTiles {
  const Backward<T>& b;
  const Row& vectors;
  const T *x, *scratch;
  T *dx, *products;
  int y0, x0, from, to;  // the class and the channels

  template <int Y, int X>
  void operator()(int row, int vector) {
    const Geometry& g = b.g;
    const int64_t line = int64_t{g.width} * g.batch;
    for (int c = from; c < to; c++) {
      const int list = (y0 * g.stride[1] + x0) * g.inputs + c, start = b.starts[list];
      const Entries<T> entries = {b.offsets.data() + start, b.values.data() + start,
                                  b.starts[list + 1] - start};
      const int64_t at = (int64_t{c} * g.height + row * g.stride[0] + y0) * line +
                         int64_t{x0} * g.batch;
      const Place<const T> place = {x + at, line * g.stride[0], &vectors.offsets[vector],
                                    &vectors.lanes[vector]};
      backward_tile<T, Y, X>(entries, scratch + row * b.shape.row + int64_t{vector} * kLanes<T>,
                             b.shape.row, place, dx ? dx + at : nullptr,
                             products + int64_t{start} * kLanes<T>);
    }
  }
};

template <typename T>
void backward(const Geometry& g, int entries, int threads, const int* p, const T* psi, const T* x,
              const T* grad, T* dx, T* dpsi) {
  constexpr int L = kLanes<T>;
  const Plan plan(p, g.outputs, g.inputs * g.kernel[0] * g.kernel[1], entries);
  threads = threads_for(2 * int64_t{entries} * g.batch * g.out_height * g.out_width, threads);
  const Split<T> split(g.batch, g.outputs, threads, g.stride[1] == 1);
  const Backward<T> b(g, plan, entries, split.columns(0).each, psi);
  // a vector of products for each entry and thread
  const int64_t size = int64_t{entries} * L;
  const Memory<T> products = memory<T>(size * threads);
  const int items = split.tiles * split.parts;
#pragma omp parallel for num_threads(threads) schedule(static, 1)
  for (int t = 0; t < threads; t++) {
    const Memory<T> scratch = memory<T>(g.outputs * b.shape.channel);
    std::fill_n(products.get() + size * t, size, T(0));
    for (int i = items * t / threads; i < items * (t + 1) / threads; i++) {
      const Columns<T> columns = split.columns(i / split.parts);
      b.shape.fill(grad, g.outputs, g.out_height, g.out_width, b.top, b.left, g.batch, columns,
                   scratch.get());
      const int part = i % split.parts;
      for (int y = 0; y < std::min(g.stride[0], g.height); y++) {
        for (int z = 0; z < std::min(g.stride[1], g.width); z++) {
          const int rows = (g.height - y + g.stride[0] - 1) / g.stride[0];
          const int pixels = (g.width - z + g.stride[1] - 1) / g.stride[1];
          const Row vectors = columns.row(pixels, g.stride[1] * g.batch);
          BackwardTiles<T> work = {b, vectors, x + columns.first, scratch.get(),
                                   dx ? dx + columns.first : nullptr, products.get() + size * t,
                                   y, z,
                                   g.inputs * part / split.parts,
                                   g.inputs * (part + 1) / split.parts};
          Cover<kBackward, BackwardTiles<T>>{work, rows, vectors.vectors()}
              .template from<std::min(kLongest, kBackward)>(0);
        }
      }
    }
  }
#pragma omp parallel for num_threads(threads) schedule(static)
  for (int k = 0; k < entries; k++) {
    Vec<T, L> total = {};
    const T* p = products.get() + int64_t{k} * L;
    for (int t = 0; t < threads; t++) total += load<T, L>(p + size * t);
    dpsi[b.places[k]] = sum<T, L>(total);
  }
}

}  // namespace

#define DEFINE(T, NAME)                                                                           \
  extern "C" void conv2d_forward_##NAME(const Geometry* g, int entries, int threads,              \
                                        const int* plan, const T* psi, const T* bias, const T* x, \
                                        T* out) {                                                 \
    forward<T>(*g, entries, threads, plan, psi, bias, x, out);                                    \
  }                                                                                               \
  extern "C" void conv2d_backward_##NAME(const Geometry* g, int entries, int threads,             \
                                         const int* plan, const T* psi, const T* x,               \
                                         const T* grad, T* dx, T* dpsi) {                         \
    backward<T>(*g, entries, threads, plan, psi, x, grad, dx, dpsi);                              \
  }
DEFINE(float, float32)
DEFINE(double, float64)
