"""Tests of `relay.hosts`: real sockets on loopback, hosts that speak the wire, virtual nothing."""
