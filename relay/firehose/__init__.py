"""The streaming port: subscribeRepos consumers, live and catching up."""
