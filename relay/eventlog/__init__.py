"""The log: the one writer, its rows, the newest events in memory, and reading from any sequence number."""
