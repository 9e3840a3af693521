"""Timelines in a Redis Cluster: a registry says which slots lost data, and which server has the data of which slot."""
