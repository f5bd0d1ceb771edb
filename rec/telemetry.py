"""Libraries below us that report their use to their makers do not do so from here, unless the user asks them to.

ONNX Runtime 1.29 and newer send a machine id, names and hashes of models, and keep a file in the user's cache for it
(its docs/Privacy.md); Ray sends statistics of a cluster, MLflow those of its calls. Each decides by the environment
when it is loaded.
"""

from __future__ import annotations

import os

VARIABLES = {"ORT_DISABLE_TELEMETRY": "1", "RAY_USAGE_STATS_ENABLED": "0", "MLFLOW_DISABLE_TELEMETRY": "true"}


def switch_off() -> None:
    """Opt out for this process and its children; a variable that the user has set stays as it is."""
    for name, value in VARIABLES.items():
        os.environ.setdefault(name, value)
