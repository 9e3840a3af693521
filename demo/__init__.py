"""A small example site: Celery indexes documents, and the page shows each one when it is done."""
