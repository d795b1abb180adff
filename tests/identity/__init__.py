"""DID documents, their cache, and resolution over real HTTP."""
