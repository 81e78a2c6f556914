"""How many identities of each tenant use a model: what `model_shift` asks before it calls a model news."""

import numpy as np

from detectors.compiled import State, compiled

USER = np.dtype([("use", "u8"), ("identities", "i8")])
"""How many identities of a tenant use a model (or any, model 0). A hash table; its last place is none: there
`identities` says how many places are taken."""


@compiled
def grow_users(users: State, grown: State) -> None:
    """Fills the blank table `grown` from a smaller one."""
    for at in range(len(users) - 1):
        if users[at].identities > 0:
            grown[-1].identities += 1
            slot = _at(grown, users[at].use)
            grown[slot].use = users[at].use
            grown[slot].identities = users[at].identities


@compiled
def _at(users: State, use: np.uint64) -> int:
    mask = np.uint64(len(users) - 2)
    at = (use * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(20) & mask
    while users[at].use != 0 and users[at].use != use:
        at = (at + np.uint64(1)) & mask
    return int(at)


@compiled
def _use(tenant: int, model: np.uint32) -> np.uint64:
    """Never 0."""
    return (np.uint64(tenant + 1) << np.uint64(32)) | np.uint64(model)


@compiled
def change_users(users: State, tenant: int, model: np.uint32, by: int) -> None:
    """So many more identities of the tenant use the model."""
    use = _use(tenant, model)
    at = _at(users, use)
    if users[at].use == 0:
        users[at].use = use
        users[-1].identities += 1
    users[at].identities += by


@compiled
def vouched(model: np.uint32, tenant: int, users: State, least: float, share: float) -> bool:
    """Whether so many others of the tenant use a model that it is no one identity's doing."""
    others = users[_at(users, _use(tenant, model))].identities - 1
    everybody = users[_at(users, _use(tenant, np.uint32(0)))].identities - 1
    return bool(others >= least and others >= share * everybody)
