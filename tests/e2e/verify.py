"""Re-verification at our consumer: the verifier of `tests/world` with keys of the real PLC directory. Trio."""

import httpx

from tests.e2e.observed import Observed
from tests.world.verify import StreamVerifier


class Verifier:
    """Checks one stream as a consumer would that trusts nobody but the PLC directory."""

    def __init__(self, *, plc: str, http: httpx.AsyncClient) -> None:
        self._plc = plc
        self._http = http
        self._keys: dict[str, list[str]] = {}
        self._stream = StreamVerifier(keys=self._keys.__getitem__)

    @property
    def discontinuities(self) -> int:
        """Commits that do not follow from the account's state before them."""
        return self._stream.discontinuities

    async def check(self, event: Observed) -> None:
        """Raises `tests.world.verify.Rejected` for an event that should not have come out."""
        if event.did not in self._keys or event.kind == "#identity":
            self._keys[event.did] = await self._fetch_keys(event.did)
        self._stream.take(event.message)

    async def _fetch_keys(self, did: str) -> list[str]:
        """Every atproto key of the account, oldest first."""
        log = (await self._http.get(f"{self._plc}/{did}/log")).raise_for_status().json()
        return [entry["verificationMethods"]["atproto"] for entry in log]
