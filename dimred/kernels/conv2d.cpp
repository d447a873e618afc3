// Convolutions with sparse filters, and the gradients of their input and of the filters' entries.
//
// Activations lie [channels][height][width][batch]. An entry of a filter multiplies whole rows of
// an image, as what it reads lies at a constant distance from what it adds to. Only at the borders
// and with strides some entries have nothing to read. So images are cut into pieces: pixels side by
// side that need the same positions (taps) of the filters' windows.
//
// In both passes, targets are computed from sources: in the forward pass channels of the output
// from those of the input, in the backward pass channels of the input from those of the output.
#include <vector>

#include "plan.h"
#include "tiles.h"

namespace {

// as kernels.calls.geometry
struct Geometry {
  int batch, inputs, height, width, outputs, out_height, out_width;
  int kernel[2], stride[2], padding[2], dilation[2];
};

// What a pass reads along one side of images: target t and tap k need the source
// (t * up + k * step + shift) / down, if there is such a pixel.
struct Axis {
  int targets, sources, taps, up, down, step, shift;

  int at(int t, int k) const { return t * up + k * step + shift; }
  bool needs(int t, int k) const {
    return at(t, k) >= 0 && at(t, k) % down == 0 && at(t, k) / down < sources;
  }
  int base(int t) const { return t * up / down; }
  // how far a source lies from the base of its target: the same for all targets that need the tap
  int distance(int k) const {
    for (int t = 0; t < targets; t++)
      if (needs(t, k)) return at(t, k) / down - base(t);
    return 0;
  }
  std::vector<int> taps_of(int t) const {
    std::vector<int> found;
    for (int k = 0; k < taps; k++)
      if (needs(t, k)) found.push_back(k);
    return found;
  }
  // about as many sources as n targets side by side need
  int reach(int n) const {
    return std::min(sources, base(n - 1) + 1 + std::abs(distance(taps - 1) - distance(0)));
  }
};

Axis forward_axis(const Geometry& g, int d) {
  const int out[] = {g.out_height, g.out_width}, in[] = {g.height, g.width};
  return {out[d], in[d], g.kernel[d], g.stride[d], 1, g.dilation[d], -g.padding[d]};
}

Axis backward_axis(const Geometry& g, int d) {
  const int out[] = {g.out_height, g.out_width}, in[] = {g.height, g.width};
  return {in[d], out[d], g.kernel[d], 1, g.stride[d], -g.dilation[d], g.padding[d]};
}

struct Range {
  int from, to;
};

// Numbers side by side, where they lie in a target and in a source, and which taps they need.
struct Piece {
  int64_t target, source;
  int numbers, first_range, ranges;
};

struct Image {
  std::vector<Piece> pieces;
  std::vector<Range> ranges;  // of taps
  std::vector<int> rows;      // the first piece of each row, and the end

  Image(const Axis& vertical, const Axis& horizontal, int batch) {
    std::vector<std::vector<int>> across;
    for (int x = 0; x < horizontal.targets; x++) across.push_back(horizontal.taps_of(x));
    for (int y = 0; y < vertical.targets; y++) {
      rows.push_back(static_cast<int>(pieces.size()));
      const std::vector<int> down = vertical.taps_of(y);
      const int64_t target = int64_t{y} * horizontal.targets * batch;
      const int64_t source = int64_t{vertical.base(y)} * horizontal.sources * batch;
      for (int x = 0; x < horizontal.targets; x++) {
        const int64_t at = source + int64_t{horizontal.base(x)} * batch;
        if (x && across[x] == across[x - 1] && at == pieces.back().source + pieces.back().numbers) {
          pieces.back().numbers += batch;
          continue;
        }
        const int first = static_cast<int>(ranges.size());
        add_ranges(down, across[x], horizontal.taps);
        pieces.push_back({target + int64_t{x} * batch, at, batch, first,
                          static_cast<int>(ranges.size()) - first});
      }
    }
    rows.push_back(static_cast<int>(pieces.size()));
  }

 private:
  void add_ranges(const std::vector<int>& down, const std::vector<int>& across, int width) {
    const size_t first = ranges.size();
    for (int y : down) {
      for (int x : across) {
        const int tap = y * width + x;
        if (ranges.size() > first && ranges.back().to == tap)
          ranges.back().to++;
        else
          ranges.push_back({tap, tap + 1});
      }
    }
  }
};

// One pass over all images of a batch.
struct Pass {
  Axis vertical, horizontal;
  int batch, targets, taps;
  Order order;
  Image image;
  int64_t target_size, source_size;  // numbers of a channel

  Pass(const Axis& vertical, const Axis& horizontal, int batch, int targets, const Order& order)
      : vertical(vertical),
        horizontal(horizontal),
        batch(batch),
        targets(targets),
        taps(vertical.taps * horizontal.taps),
        order(order),
        image(vertical, horizontal, batch),
        target_size(int64_t{vertical.targets} * horizontal.targets * batch),
        source_size(int64_t{vertical.sources} * horizontal.sources * batch) {}

  // by tap: how far the numbers that it reads lie from the base of their target
  std::vector<int64_t> distances() const {
    std::vector<int64_t> found;
    for (int y = 0; y < vertical.taps; y++)
      for (int x = 0; x < horizontal.taps; x++)
        found.push_back((int64_t{vertical.distance(y)} * horizontal.sources +
                         horizontal.distance(x)) * batch);
    return found;
  }
};

// The entries of the targets from..to - 1, in the order of the pass.
template <typename T>
struct Entries {
  std::vector<int> offsets;  // from a number of the target to that of the source
  std::vector<T> values;

  Entries(const Pass& pass, const T* psi, int from, int to) {
    const int *starts = pass.order.starts, taps = pass.taps;
    offsets.reserve(starts[to * taps] - starts[from * taps]);
    values.reserve(offsets.capacity());
    const std::vector<int64_t> distances = pass.distances();
    for (int i = from * taps; i < to * taps; i++) {
      for (int k = starts[i]; k < starts[i + 1]; k++) {
        const int64_t channel = pass.order.sources[k] * pass.source_size;
        offsets.push_back(static_cast<int>(channel + distances[i % taps]));
        values.push_back(psi[pass.order.places[k]]);
      }
    }
  }
};

// What one target is computed from.
template <typename T>
struct Inputs {
  const int* starts;  // by tap, of the entries of all targets
  const int* offsets;
  const T* values;
  const T* source;

  int count(int taps) const { return starts[taps] - starts[0]; }

  // Calls work(which entry, its value, the numbers that it multiplies) for all that a piece needs.
  template <typename Work>
  void of(const Image& image, const Piece& piece, Work work) const {
    const Range* const ranges = image.ranges.data() + piece.first_range;
    for (int r = 0; r < piece.ranges; r++) {
      const int to = starts[ranges[r].to] - starts[0];
      for (int k = starts[ranges[r].from] - starts[0]; k < to; k++)
        work(k, values[k], source + piece.source + offsets[k]);
    }
  }
};

// -- tiles --------------------
template <typename T, int L, int N>
void forward_tile(const Inputs<T>& inputs, const Image& image, const Piece& piece, T* out, T bias,
                  int first, int last) {
  Tile<T, L, N> sums;
  for (int j = 0; j < N; j++) sums.v[j] = Vec<T, L>{} + bias;
  inputs.of(image, piece, [&](int, T value, const T* source) {
    Tile<T, L, N> in;
    in.read(source + first, last);
#pragma GCC unroll 8
    for (int j = 0; j < N; j++) sums.v[j] += value * in.v[j];
  });
  sums.write(out + first, last);
}

// products: a register for each entry, whose numbers add up to its gradient
template <typename T, int L, int N, bool kInput>
void backward_tile(const Inputs<T>& inputs, const Image& image, const Piece& piece, const T* x,
                   T* dx, T* products, int first, int last, int counted) {
  Tile<T, L, N> in, sums = {};
  in.read(x + first, last);
  for (int i = 0; i < counted; i++) in.v[N - 1][i] = 0;
  inputs.of(image, piece, [&](int k, T value, const T* source) {
    Tile<T, L, N> g;
    g.read(source + first, last);
    T* const at = products + int64_t{k} * kLanes<T>;
    Vec<T, L> both[2] = {load<T, L>(at), {}};
#pragma GCC unroll 8
    for (int j = 0; j < N; j++) {
      if (kInput) sums.v[j] += value * g.v[j];
      both[j % 2] += in.v[j] * g.v[j];
    }
    store<T, L>(at, both[0] + both[1]);
  });
  if (kInput) sums.write(dx + first, last);
}

// -- passes --------------------
constexpr int64_t kCache = 2 << 20;  // bytes

// How many threads share the targets, and how many the rows of each.
struct Split {
  int targets, rows;
  Split(const Pass& pass, int threads)
      : rows(std::min(pass.vertical.targets, 1 + 4 * (threads - 1) / pass.targets)) {
    targets = std::max(1, threads / rows);
  }
};

// Calls work(inputs, target, first row, end, part of the rows) until all targets are computed. What
// some rows of all targets need of the sources stays in caches.
template <typename T, typename Work>
void walk(const Pass& pass, const Split& split, const T* psi, const T* source, int sources,
          Work work) {
  const auto fits = [&](int rows) {
    const int64_t row = int64_t{pass.horizontal.sources} * pass.batch * sizeof(T);
    return pass.vertical.reach(rows) * row * sources <= kCache;
  };
  const int height = pass.vertical.targets;
  int rows = 1;
  while (rows < height && fits(rows + 1)) rows++;
#pragma omp parallel for num_threads(split.targets * split.rows) schedule(static, 1)
  for (int t = 0; t < split.targets * split.rows; t++) {
    int from, to;
    share(pass.order, pass.targets, pass.taps, split.targets, t / split.rows, &from, &to);
    const Entries<T> all(pass, psi, from, to);
    const int part = t % split.rows, end = height * (part + 1) / split.rows;
    for (int y = height * part / split.rows; y < end; y += rows) {
      for (int target = from; target < to; target++) {
        const int* const starts = pass.order.starts + target * pass.taps;
        const int first = *starts - pass.order.starts[from * pass.taps];
        const Inputs<T> inputs = {starts, all.offsets.data() + first, all.values.data() + first,
                                  source};
        work(inputs, target, y, std::min(end, y + rows), part);
      }
    }
  }
}

template <typename T>
void forward(const Geometry& g, int entries, int threads, const int* p, const T* psi, const T* bias,
             const T* x, T* out) {
  const Plan plan(p, g.outputs, g.inputs, g.kernel[0] * g.kernel[1], entries);
  const Pass pass(forward_axis(g, 0), forward_axis(g, 1), g.batch, g.outputs, plan.forward);
  threads = threads_for(int64_t{entries} * g.batch * g.out_height * g.out_width, threads);
  walk(pass, Split(pass, threads), psi, x, g.inputs,
       [&](const Inputs<T>& inputs, int target, int y, int end, int) {
    const Image& image = pass.image;
    for (int i = image.rows[y]; i < image.rows[end]; i++) {
      const Piece& piece = image.pieces[i];
      T* const to = out + target * pass.target_size + piece.target;
      cover<T, kForward>(piece.numbers, [&](auto lanes, auto vectors, int first, int last, int) {
        forward_tile<T, decltype(lanes)::value, decltype(vectors)::value>(
            inputs, image, piece, to, bias ? bias[target] : T(0), first, last);
      });
    }
  });
}

template <typename T, bool kInput>
void backward(const Geometry& g, int entries, int threads, const int* p, const T* psi, const T* x,
              const T* grad, T* dx, T* dpsi) {
  const Plan plan(p, g.outputs, g.inputs, g.kernel[0] * g.kernel[1], entries);
  const Pass pass(backward_axis(g, 0), backward_axis(g, 1), g.batch, g.inputs, plan.backward);
  const Split split(pass, threads_for(2 * int64_t{entries} * g.batch * g.out_height * g.out_width,
                                      threads));
  // the gradients of psi by each part of the rows
  std::vector<T> sums(int64_t{split.rows} * entries);
  walk(pass, split, psi, grad, g.outputs,
       [&](const Inputs<T>& inputs, int target, int y, int end, int part) {
    const Image& image = pass.image;
    const int count = inputs.count(pass.taps);
    std::vector<T> products(int64_t{count} * kLanes<T>);
    for (int i = image.rows[y]; i < image.rows[end]; i++) {
      const Piece& piece = image.pieces[i];
      const int64_t at = target * pass.target_size + piece.target;
      cover<T, kBackward>(piece.numbers, [&](auto lanes, auto vectors, int first, int last,
                                             int counted) {
        backward_tile<T, decltype(lanes)::value, decltype(vectors)::value, kInput>(
            inputs, image, piece, x + at, kInput ? dx + at : nullptr, products.data(), first, last,
            counted);
      });
    }
    const int* const places = pass.order.places + inputs.starts[0];
    T* const to = sums.data() + int64_t{part} * entries;
    for (int k = 0; k < count; k++)
      to[places[k]] += sum<T, kLanes<T>>(load<T, kLanes<T>>(products.data() +
                                                            int64_t{k} * kLanes<T>));
  });
  for (int k = 0; k < entries; k++) {
    dpsi[k] = 0;
    for (int part = 0; part < split.rows; part++) dpsi[k] += sums[int64_t{part} * entries + k];
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
    (dx ? backward<T, true> : backward<T, false>)(*g, entries, threads, plan, psi, x, grad, dx,   \
                                                  dpsi);                                          \
  }
DEFINE(float, float32)
DEFINE(double, float64)
