"""What can be wrong with our own storage. Pure.

None of these is a peer's doing: they pass through every task boundary, and all but a full disk end the process.
"""


class StoreError(Exception):
    """Our own storage failed or is not what it should be: the process must end."""


class OutOfSpace(StoreError):
    """The file system is full: nothing was written, and the same may be tried again.

    Reads go on. RocksDB refuses every write from then on, until it finds `RESUME_BYTES` free; it looks every 5 s.
    """
