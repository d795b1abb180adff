"""Random life in the fake network. Pure but for what `World` emits.

Owns which kind of event comes next, by weight; the world's own generator decides, so that a seed gives the same life.
"""

from collections.abc import Callable, Mapping

from tests.world import records
from tests.world.network import Account, World
from tests.world.repo import Proof

EVERYTHING: Mapping[str, int] = {
    "commit": 880,
    "large_commit": 2,
    "sync": 10,
    "silent_commit_and_sync": 3,
    "identity": 10,
    "handle": 15,
    "deactivate": 12,
    "take_down": 4,
    "reactivate": 30,
    "delete": 2,
    "create": 10,
    "rotate_key": 12,
    "migrate": 10,
}
COMMITS_ONLY: Mapping[str, int] = {"commit": 1}
WRITES_PER_COMMIT = (1, 2, 3, 5, 10)
WRITES_WEIGHTS = (84, 8, 4, 3, 1)


class Workload:
    """One step is one life event of one account.

    `caught_up(account)` says whether the relay has let out all that the account emitted: keys and hosts change only
    then, because a relay that is behind may drop what was valid when it was sent. Without a relay: `lambda _: False`.
    `living_min` accounts are never deleted.
    """

    def __init__(
        self,
        world: World,
        *,
        weights: Mapping[str, int],
        caught_up: Callable[[Account], bool],
        proof: Proof = "covering",
        living_min: int = 1,
    ) -> None:
        self._world = world
        self._weights = weights
        self._caught_up = caught_up
        self._proof = proof
        self._living_min = living_min
        self._active = [account for account in world.accounts.values() if account.active]
        self._paused: list[Account] = []
        self.steps: dict[str, int] = dict.fromkeys(weights, 0)
        """How often each kind was done."""

    def step(self) -> str:
        """Let something happen; returns its kind (a commit where the chosen kind is not possible now)."""
        kind = self._world.rng.choices(list(self._weights), list(self._weights.values()))[0]
        account = self._world.rng.choice(self._active)
        kind = kind if self._possible(kind, account) else "commit"
        self._do(kind, account)
        self.steps[kind] = self.steps.get(kind, 0) + 1
        return kind

    def _possible(self, kind: str, account: Account) -> bool:
        match kind:
            case "rotate_key":
                return self._caught_up(account)
            case "migrate":
                return len(self._world.hosts) > 1 and self._caught_up(account)
            case "reactivate":
                return bool(self._paused)
            case "deactivate" | "take_down" | "delete":
                return len(self._active) > self._living_min
        return True

    def _do(self, kind: str, account: Account) -> None:
        world, rng = self._world, self._world.rng
        match kind:
            case "commit" | "large_commit":
                count = 200 if kind == "large_commit" else rng.choices(WRITES_PER_COMMIT, WRITES_WEIGHTS)[0]
                world.commit(account, records.writes(rng, account.repo, count=count), proof=self._proof)
            case "sync":
                world.sync(account)
            case "silent_commit_and_sync":
                account.repo.commit(records.writes(rng, account.repo))
                world.sync(account)
            case "identity":
                world.identity(account, handle=account.handle)
            case "handle":
                world.change_handle(account, f"renamed{rng.getrandbits(40):x}.test")
            case "deactivate" | "take_down":
                (world.deactivate if kind == "deactivate" else world.take_down)(account)
                self._active.remove(account)
                self._paused.append(account)
            case "reactivate":
                back = self._paused.pop(rng.randrange(len(self._paused)))
                world.reactivate(back)
                self._active.append(back)
            case "delete":
                world.delete(account)
                self._active.remove(account)
            case "create":
                self._active.append(world.create_account(rng.choice(world.hosts)))
            case "rotate_key":
                world.rotate_key(account, curve=rng.choice(("k256", "p256")))
            case "migrate":
                former = account.host
                world.migrate(account, rng.choice([host for host in world.hosts if host is not former]))
