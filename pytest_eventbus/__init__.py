"""Fixtures for pytest. They stand apart from what they give, which is imported when a test asks for it.

pytest loads these modules in every run of every project that has this distribution installed, before anything else: so
they import pytest and nothing more, and do no harm where an extra is missing.
"""
