// The entries of a sparse matrix, as dimred/kernels/plan.py lays them out.
#pragma once

// R x C, its entries in the order of rows, and once more in the order of columns, there with their
// places in the first order.
struct Plan {
  const int *row_starts, *columns, *column_starts, *rows, *places;
  Plan(const int* p, int R, int C, int entries)
      : row_starts(p),
        columns(row_starts + R + 1),
        column_starts(columns + entries),
        rows(column_starts + C + 1),
        places(rows + entries) {}
};
