"""``emit`` after the commit of a database transaction: Django, SQLAlchemy. A module imports its library."""
