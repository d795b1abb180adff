"""Every check between a host's event and the log, in each account's order."""
