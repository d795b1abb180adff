"""Real PDS hosts and a real PLC in, foreign consumers out. Needs what `scripts/e2e-setup` brings."""
