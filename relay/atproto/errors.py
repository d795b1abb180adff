"""What can be wrong with bytes or text that a peer sent. Pure.

One class per kind of verdict that the validation policy tells apart; the message says what was wrong, with the
offending value cut short. Anything else that escapes from `relay.atproto` is a bug of ours.
"""


class InvalidData(ValueError):
    """A peer's bytes or text break a rule of the protocol."""


class InvalidSyntax(InvalidData):
    """A DID, NSID, record key, TID, path, handle or datetime is malformed."""


class InvalidCbor(InvalidData):
    """Not strict DAG-CBOR, or over one of its limits."""


class InvalidCid(InvalidData):
    """Not a CID, or not one of the blessed forms where one is required."""


class InvalidCar(InvalidData):
    """Not a CARv1, or a block does not hash to its CID."""


class InvalidKey(InvalidData):
    """A public key is malformed, of an unknown curve, or not on the curve."""


class InvalidFrame(InvalidData):
    """A message is not header and payload of an event stream."""


class InvalidEvent(InvalidData):
    """A decodable message lacks a field, has one of the wrong type, or breaks a limit.

    `seq` is the message's own sequence number where that much could be read, so that the host's cursor may
    still move past it. `kind` is the frame's `t`, or "".
    """

    def __init__(self, message: str, *, seq: int | None = None, kind: str = "") -> None:
        super().__init__(message)
        self.seq = seq
        self.kind = kind


class InvalidCommit(InvalidData):
    """A commit object is malformed."""


class InvalidTree(InvalidData):
    """A tree node is malformed, or the visible tree breaks the shape that its keys demand."""


class Contradiction(InvalidData):
    """The tree says otherwise than the operations, or undoing them does not give `prevData`."""


class MissingBlock(InvalidData):
    """A block on the path from the root to an operation's key, or a written record's block, is absent."""


class MissingNeighbour(InvalidData):
    """Every path is complete, but the inversion needs a neighbouring node that is absent."""
