"""Which account writes to which collection (comes with the collection directory)."""
