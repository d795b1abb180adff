"""The version, from the installed package. Pure."""

from importlib.metadata import version

VERSION = version("atproto-relay")
USER_AGENT = f"atproto-relay/{VERSION}"
