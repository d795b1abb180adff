"""The protocol: bytes to values and back. Pure; nothing in here knows that a relay exists."""
