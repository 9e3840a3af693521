"""Health checks: does Redis work, and does this instance receive what is published?"""
