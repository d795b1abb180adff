"""Upstream: one task per PDS host, from the dial to whole, numbered, decoded events."""
