"""What the workers of stable know of the other labels: the supervisor tells them, whenever it changes."""

from __future__ import annotations

import msgspec


class Routes(msgspec.Struct, frozen=True):
    """Whose requests go elsewhere, and what is shown of all labels.

    `share` of users, by `salt`, are the canary's while it has a worker that serves (`canary`); the shadow likewise
    (`shadow`). `models` are the labels of metrics, one mapping for each label; `outputs` name the columns of the
    shadow's differences.
    """

    salt: str = ""
    share: float = 0.0
    canary: bool = False
    shadow: bool = False
    models: tuple[dict[str, str], ...] = ()
    outputs: tuple[str, ...] = ()
