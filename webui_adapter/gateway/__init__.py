"""One gateway instance, put together from its parts."""
