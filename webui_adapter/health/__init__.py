"""Is Redis well, and does this instance hear it?"""
