"""Outbound transport: host names, guarded dialling, bounded HTTP. Knows nothing of the protocol."""
