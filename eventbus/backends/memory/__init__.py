"""The in-process backend, for tests and single processes."""
