"""A self-hosted AT Protocol relay.

An event's way: hosts (one socket per PDS) -> validation (per-account order, every check) -> eventlog (the one
writer, RocksDB, the tail) -> firehose (consumers). Nothing unverified gets a sequence number; nothing unsynced
is sent.
"""
