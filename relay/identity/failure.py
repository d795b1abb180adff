"""The ways in which a DID does not lead to an identity. Pure values.

What matters is whose fault it is: a DID's own failure has a deadline, the directory's has none (DESIGN 5.2).
"""


class IdentityFailure(Exception):
    """This DID could not be resolved, while the directory (if it needs one) answers others. May pass."""


class IdentityNotFound(IdentityFailure):
    """There is no such identity, or no longer (404, 410, for did:web also a name that does not exist)."""


class InvalidIdentity(IdentityFailure):
    """The DID is malformed or of an unsupported method, or its document does not serve."""


class DirectoryUnavailable(Exception):
    """The directory itself fails: nothing is known about the DID. Not worth a try before `retry_seconds`."""

    def __init__(self, message: str, *, retry_seconds: float = 0.0) -> None:
        super().__init__(message)
        self.retry_seconds = retry_seconds
