"""Dynamic sparse training: as many weights as in the end from the start, but not always the same ones."""
