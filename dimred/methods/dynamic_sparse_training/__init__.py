"""Dynamic sparse training: sparse from the start, with connections that change."""
