"""Each alert that a machine can provoke, seen to fire for its fault: `make prove`."""
