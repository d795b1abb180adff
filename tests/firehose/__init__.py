"""The streaming port over real sockets."""
