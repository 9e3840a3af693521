"""Several gateway processes that share one port: ``python -m webui_adapter --workers 4``."""
