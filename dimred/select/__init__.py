"""Which coordinates to train: exact selection, allocations, schedules."""
