"""`make bench`: Belfry and its rivals side by side: one machine, the same data, the same gunicorn settings."""
