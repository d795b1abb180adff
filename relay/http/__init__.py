"""The HTTP port: queries, admin, health, metrics."""
