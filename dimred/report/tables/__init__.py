"""Published tables, filled from run folders."""
