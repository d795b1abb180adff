"""A fake network: accounts with real keys and repositories, hosts and a directory that speak the wire, and the consumer
and oracle that judge what a relay makes of them. Shares no verification code with the relay."""
