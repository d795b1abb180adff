"""A fake PLC directory on loopback. A trio shell.

Owns the identities of the fake network, their DID documents in current and legacy form, and scripted failures. Not a
ledger: there are no operations and no history but that of the signing keys.
"""

import json
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any, Literal

import trio

from tests.world.exchange import Request, Response, json_response
from tests.world.http_server import Answer, Condition, listen, port_of, serve
from tests.world.keys import SigningKey

Form = Literal["multikey", "legacy"]


@dataclass(frozen=True, slots=True)
class DidEntry:
    """What a DID's document says. `endpoint` None: no PDS; `key` None: no signing key."""

    did: str
    key: SigningKey | None
    endpoint: str | None
    handle: str | None = None
    form: Form = "multikey"


def document(entry: DidEntry) -> dict[str, Any]:
    """A DID document as the directory gives it (protocol.md section 5, table of key forms)."""
    methods = []
    if entry.key is not None:
        legacy = entry.form == "legacy"
        method = {
            "id": "#atproto" if legacy else f"{entry.did}#atproto",
            "type": entry.key.legacy_type if legacy else "Multikey",
            "controller": entry.did,
            "publicKeyMultibase": entry.key.legacy_multibase if legacy else entry.key.multikey,
        }
        methods.append(method)
    services = []
    if entry.endpoint is not None:
        service = {"id": "#atproto_pds", "type": "AtprotoPersonalDataServer", "serviceEndpoint": entry.endpoint}
        services.append(service)
    return {
        "@context": ["https://www.w3.org/ns/did/v1", "https://w3id.org/security/multikey/v1"],
        "id": entry.did,
        "alsoKnownAs": [] if entry.handle is None else [f"at://{entry.handle}"],
        "verificationMethod": methods,
        "service": services,
    }


def document_response(entry: DidEntry) -> Response:
    """The document as an HTTP answer; a `FakeHost.well_known["/.well-known/did.json"]` for a did:web."""
    return Response(200, json.dumps(document(entry)).encode(), content_type="application/did+ld+json")


class FakeDirectory:
    """One directory. Make it with `await FakeDirectory.open()`, run `serve()` in a nursery; change it at any time."""

    def __init__(self, *, listener: trio.SocketListener) -> None:
        self._listener: trio.SocketListener | None = listener
        self.port = port_of(listener)
        self._entries: dict[str, DidEntry] = {}
        self._keys: dict[str, list[str]] = {}
        self.answers: dict[str, Response] = {}
        """DID to a scripted answer in place of the true one: an error, a broken document, a redirect."""
        self.failure: Response | None = None
        """The answer to everything, while the directory itself fails."""
        self.latency_seconds = 0.0
        """How long an answer takes; `math.inf` for none at all."""
        self.requests: Counter[str] = Counter()
        """How often each DID was asked for."""
        self.changed = Condition()
        """Notified at every request."""

    @classmethod
    async def open(cls) -> "FakeDirectory":
        """A directory with a listening socket on 127.0.0.1."""
        return cls(listener=await listen())

    @property
    def url(self) -> str:
        """`http://localhost:PORT`."""
        return f"http://localhost:{self.port}"

    def put(self, entry: DidEntry) -> None:
        """Register a DID, or set what its document says."""
        self._entries[entry.did] = entry
        self.answers.pop(entry.did, None)
        keys = self._keys.setdefault(entry.did, [])
        if entry.key is not None and entry.key.did_key not in keys:
            keys.append(entry.key.did_key)

    def get(self, did: str) -> DidEntry:
        """What the document says now; raises KeyError for an unknown DID."""
        return self._entries[did]

    def change(self, did: str, **fields: Any) -> None:
        """Set fields of `DidEntry`: switch a key, an endpoint, a handle or the form."""
        self.put(replace(self._entries[did], **fields))

    def tombstone(self, did: str) -> None:
        """Answer 410 from now on, until `put` or `change`."""
        self.answers[did] = json_response(410, {"message": f"DID not available: {did}"})

    def keys(self, did: str) -> list[str]:
        """Every did:key that the DID ever had, oldest first; empty for an unknown one."""
        return list(self._keys.get(did, ()))

    async def serve(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer until cancelled: then it is down, connections and all. Run it again to come back on the same port
        (with `await nursery.start(…)`, which returns once it listens)."""
        listener, self._listener = self._listener or await listen(self.port), None
        task_status.started()
        await serve(listener, self._answer, server="fake-plc")

    async def _answer(self, request: Request) -> Answer:
        did = request.path.removeprefix("/")
        self.requests[did] += 1
        self.changed.notify()
        await trio.sleep(self.latency_seconds)
        if self.failure is not None:
            return self.failure
        if did == "_health":
            return json_response(200, {"version": "fake"})
        if did in self.answers:
            return self.answers[did]
        if did not in self._entries:
            return json_response(404, {"message": f"DID not registered: {did}"})
        return document_response(self._entries[did])
