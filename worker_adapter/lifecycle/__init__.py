"""Celery's signals, the main process, the bootstep, and cancellation."""
