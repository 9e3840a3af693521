"""Progress reports of loops, files and stages."""
