"""Settings of the server: limits, timeouts and how it stops. They are no part of a bundle, and change no digest.

head_seconds = 5.0          serve.toml; every key may be left out
max_body = 4194304
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from rec.errors import SpecError, nearest
from rec.spec.load import toml
from rec.spec.types import Strict
from serving.server.event_log import LogFormat

Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=1)]


class ServerSettings(Strict):
    """What a server allows its clients, and itself when it stops. Limits hold for each worker process."""

    head_seconds: Seconds = Field(default=5.0, description="for the head of a request to arrive")
    body_seconds: Seconds = Field(default=5.0, description="for the body of a request to arrive")
    write_seconds: Seconds = Field(default=10.0, description="for a client to take its answer")
    idle_seconds: Seconds = Field(default=75.0, description="between two requests of a connection")
    head_bytes: Count = Field(default=16 * 1024, description="bytes of a head; trailers may have as many")
    max_body: Count = Field(default=4 * 1024 * 1024, description="bytes of a body")
    receiving_bytes: Count = Field(
        default=256 * 1024 * 1024, description="bytes of all bodies being received; beyond, the slowest is dropped"
    )
    connections: Count = Field(default=8192, description="connections at once; beyond, the slowest is dropped")
    pipelined: Count = Field(default=16, description="requests of one connection that wait for an answer")
    in_flight: Count = Field(default=256, description="requests that wait to be ranked; beyond, 503")
    queue_seconds: Seconds = Field(
        default=0.5, description="longest wait to be ranked, by an estimate that 99 of 100 keep; else 503"
    )
    drain_seconds: Annotated[float, Field(ge=0, le=3600)] = Field(
        default=0.5, description="from the moment /readyz says 503 until connections are refused"
    )
    grace_seconds: Seconds = Field(default=15.0, description="for a stopping worker to finish its requests")
    stuck_seconds: Annotated[float, Field(ge=1, le=86_400)] = Field(
        default=30.0, description="without a heartbeat, after which a worker is killed"
    )
    start_seconds: Seconds = Field(default=300.0, description="for a worker to load a bundle and get warm")
    memory_bytes: Annotated[int, Field(ge=0)] = Field(
        default=0, description="of data while a worker loads a bundle; 0: 4 GiB and 8 times the bundle's size"
    )
    spare_workers: Annotated[int, Field(ge=0, le=16)] = Field(
        default=1, description="warm workers that wait to replace one that dies"
    )
    canary_seconds: Seconds = Field(default=1.0, description="for a canary's answer; then stable answers")
    shadow_queue: Count = Field(
        default=32, description="requests that wait for the shadow; beyond, they are not compared"
    )
    log_format: LogFormat = Field(default="text", description="of stderr: warnings as `text`, or all events as `json`")
    access_log: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.0, description="share of requests that are logged; with `log_format` json"
    )


def read_settings(path: Path | None, **overrides: object) -> ServerSettings:
    """The settings of a TOML file, or the defaults; `overrides` that are not None win. SpecError names a mistake."""
    values: dict[str, object] = {}
    if path is not None:
        try:
            values = toml(path.read_text(encoding="utf-8-sig"))
        except OSError as error:
            raise SpecError(f"{path}: {error.strerror}") from None
        except ValueError as error:
            raise SpecError(f"{path}: {error}") from None
    where = "serve" if path is None else str(path)
    for key in values:
        if key not in ServerSettings.model_fields:
            raise SpecError(f"{where}: {key}: no setting of the server{nearest(key, ServerSettings.model_fields)}")
    try:
        settings = ServerSettings.model_validate(values | {k: v for k, v in overrides.items() if v is not None})
    except ValidationError as error:
        first = error.errors()[0]
        name = ".".join(map(str, first["loc"]))
        raise SpecError(f"{where}: {name}: {first['msg']}, got {first['input']!r}") from None
    if settings.access_log and settings.log_format != "json":
        raise SpecError(f'{where}: access_log: expected log_format = "json" beside it, got "{settings.log_format}"')
    return settings
