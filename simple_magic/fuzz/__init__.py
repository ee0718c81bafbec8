"""Differential testing: random programs on all executors, findings made small and kept as filetests."""
