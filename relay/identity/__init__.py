"""DID -> (signing key, PDS host): documents, resolution, cache."""
