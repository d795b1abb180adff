"""Tests of relay.state: one suite on both engines."""
