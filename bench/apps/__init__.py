"""The apps that the benchmarks serve: the same routes, with and without what watches them."""
