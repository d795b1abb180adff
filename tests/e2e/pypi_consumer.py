"""A foreign consumer: the firehose client of PyPI `atproto`, in a process of its own (it blocks and prints).

    python pypi_consumer.py SERVICE

Prints one JSON line per operation, `#sync`, `#identity` and `#account` as the library hands them out, in the form
of `npm/consumer.cjs`. Ends when killed, or with status 1 when the library stops by itself.
"""

import json
import sys

from atproto import CAR, CID, models  # type: ignore[import-untyped]
from atproto import FirehoseSubscribeReposClient as Client
from atproto import parse_subscribe_repos_message as parse
from atproto_subscription.frames import MessageFrame  # type: ignore[import-untyped]

EventModels = models.ComAtprotoSyncSubscribeRepos


def describe(frame: MessageFrame) -> list[dict[str, object]]:
    message = parse(frame)
    match message:
        case EventModels.Commit(seq=seq, repo=did, rev=rev):
            blocks = CAR.from_bytes(bytes(message.blocks)).blocks
            for op in message.ops:
                if op.cid is not None and CID.decode(op.cid.encode()) not in blocks:
                    raise ValueError(f"{did}/{op.path}: the record is not in the CAR")
            return [
                {"seq": seq, "did": did, "kind": op.action, "rev": rev, "path": op.path}
                | {"cid": None if op.cid is None else op.cid.encode()}
                for op in message.ops
            ]
        case EventModels.Sync(seq=seq, did=did, rev=rev):
            root = CAR.from_bytes(bytes(message.blocks)).root
            return [{"seq": seq, "did": did, "kind": "sync", "rev": rev, "cid": root.encode()}]
        case EventModels.Identity(seq=seq, did=did):
            return [{"seq": seq, "did": did, "kind": "identity"}]
        case EventModels.Account(seq=seq, did=did, active=active, status=status):
            return [{"seq": seq, "did": did, "kind": "account", "active": active, "status": status}]
    raise ValueError(f"unexpected message {message!r}")


def main(service: str) -> None:
    client = Client({"cursor": 0}, base_uri=f"{service}/xrpc")

    def on_message(frame: MessageFrame) -> None:
        for line in describe(frame):
            print(json.dumps(line), flush=True)
        client.update_params({"cursor": frame.body["seq"]})

    def on_error(error: BaseException) -> None:
        print(json.dumps({"error": repr(error)}), flush=True)

    client.start(on_message, on_error)


if __name__ == "__main__":
    main(sys.argv[1])
    sys.exit("the library stopped by itself")
