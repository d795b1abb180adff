"""The Jetstream-compatible JSON view (comes with Jetstream)."""
