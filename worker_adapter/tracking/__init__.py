"""Progress: loops, files, stages, and how full the bar is."""
