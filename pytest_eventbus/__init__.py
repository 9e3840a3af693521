"""Fixtures for pytest. They import the event bus only when a test requests it.

pytest loads these modules in every run of every project that has this distribution installed, before anything else: so
they import pytest and nothing more, and do no harm where an extra is missing.
"""
