"""Parsers of what strangers send, under a coverage-guided fuzzer: ``python -m tests.security.fuzz``."""
