"""A small Semantik: documents are indexed by Celery, and the page sees each of them as it is done."""
