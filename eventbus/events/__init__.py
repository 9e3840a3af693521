"""Event classes, their registry, their JSON encoding, and the exported schemas."""
