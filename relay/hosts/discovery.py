"""Whether a name that somebody gave is a host of accounts at all. Trio.

Asks the host; does not decide what may be asked for or dialled.
"""

import json

from relay.net.hostname import HostName
from relay.net.http_client import HttpClient, HttpError

_ANSWER_BYTES_MAX = 64 * 1024


async def find_fault(client: HttpClient, host: HostName) -> str | None:
    """Ask for `com.atproto.server.describeServer`; returns what is wrong with the answer, None for a JSON object.

    What the object says is not looked at: hosts differ, and none of it binds an account to the host (peers.md 1.6).
    """
    url = f"{host.http_url}/xrpc/com.atproto.server.describeServer"
    try:
        response = await client.get(url, body_bytes_max=_ANSWER_BYTES_MAX)
    except HttpError as error:
        return str(error)
    if response.status != 200:
        return f"describeServer gave HTTP status {response.status}"
    try:
        description = json.loads(response.body)
    except (ValueError, RecursionError):
        description = None
    return None if isinstance(description, dict) else "describeServer gave no JSON object"
