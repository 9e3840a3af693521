"""Where events are kept and carried: the ports, the in-process backend, Redis."""
