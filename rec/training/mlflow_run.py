"""A run of an MLflow tracking server: metrics of looks and validations; of the extra `mlflow`.

The experiment is called after the spec. MODEL/mlflow.json remembers the run, which training that goes on continues.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path

from rec import telemetry
from rec.atomic import read_json, write_json

NAME = "mlflow.json"


class MlflowWatcher:
    """Metrics of one MLflow run at `uri`; `experiment` is its name, `params` are written when the run is new."""

    def __init__(self, folder: Path, uri: str, *, experiment: str, params: Mapping[str, object]) -> None:
        telemetry.switch_off()  # a training reports to the server it was given, and to nobody else
        from mlflow.entities import Metric, Param
        from mlflow.tracking import MlflowClient

        self._metric, self._client = Metric, MlflowClient(tracking_uri=uri)
        path = folder / NAME
        known = read_json(path) if path.exists() else {}
        if known.get("uri") == uri:
            self._run: str = known["run"]
            self._client.update_run(self._run, status="RUNNING")
            return
        existing = self._client.get_experiment_by_name(experiment)
        of = self._client.create_experiment(experiment) if existing is None else existing.experiment_id
        self._run = self._client.create_run(of, run_name=folder.name).info.run_id
        self._client.log_batch(self._run, params=[Param(name, str(value)) for name, value in params.items()])
        write_json(path, {"uri": uri, "run": self._run})

    def step(self, step: int, figures: Mapping[str, float]) -> None:
        """One metric a figure, in one request."""
        now = time.time_ns() // 1_000_000
        self._client.log_batch(self._run, [self._metric(n, v, now, step) for n, v in _named(figures).items()])

    def validation(self, step: int, figures: Mapping[str, float]) -> None:
        """The same under `validation/`."""
        self.step(step, {f"validation/{name}": value for name, value in figures.items()})

    def close(self) -> None:
        """The run is over."""
        self._client.set_terminated(self._run)


def _named(figures: Mapping[str, float]) -> dict[str, float]:
    """Names that MLflow takes: `buy|click` is `buy given click`.

    >>> _named({"auc/buy|click": 0.5, "loss/buy (ips)": 1.0})
    {'auc/buy given click': 0.5, 'loss/buy _ips_': 1.0}
    """
    return {
        "".join(c if c.isalnum() or c in "_-. /" else "_" for c in name.replace("|", " given ")): value
        for name, value in figures.items()
    }
