// The entries of a sparse weight, as dimred/kernels/plan.py lays them out.
#pragma once
#include <cstdint>

// Entries in the order of their targets, which are rows in the forward pass and columns in the
// backward pass. A target of a filter is a channel with a position (tap) of the window.
struct Order {
  const int* starts;   // the first entry of each target, and the end
  const int* sources;  // of each entry: its column or, in the backward pass, its row
  const int* places;   // of each entry: where it lies in psi
};

// A weight of R rows, C columns and so many taps. Linear layers have one tap, and the rows of their
// entries are in the order of psi.
struct Plan {
  Order forward, backward;
  Plan(const int* p, int R, int C, int taps, int entries) {
    const int* columns = p + R * taps + 1;
    const int* column_starts = columns + entries;
    const int* rows = column_starts + C * taps + 1;
    forward = {p, columns, rows + 2 * entries};
    backward = {column_starts, rows, rows + entries};
  }
};

// Part i of n targets, where all parts have about as many entries.
static inline void share(const Order& order, int n, int taps, int parts, int i, int* from,
                         int* to) {
  const auto bound = [&](int part) {
    const int64_t entries = int64_t{order.starts[n * taps]} * part / parts;
    int target = 0;
    while (target < n && order.starts[target * taps] < entries) target++;
    return part == parts ? n : target;
  };
  *from = bound(i);
  *to = bound(i + 1);
}
