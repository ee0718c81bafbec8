"""Executors: the interpreter (the definition) and the native back ends that are compared with it."""
