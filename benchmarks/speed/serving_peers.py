"""Other servers around the same ONNX file, one worker process or several, one thread of ONNX Runtime each.

    PYTHON serving_peers.py JOB.json        PYTHON has the library, and needs nothing of multigate

The job says `library`, `model` (an .onnx), `port`, `workers` and `folder`, an empty one. A request is one of the Open
Inference Protocol, version 2, with all inputs of the graph as they are fed: nothing has to be looked up, converted,
calibrated or put in order. Each library is set up as its own manual does for a model of one's own.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np

LIBRARIES = {"fastapi": "fastapi", "bentoml": "bentoml", "mlserver": "mlserver", "ray serve": "ray"}  # and modules
PATHS = {
    "fastapi": "/infer",
    "bentoml": "/infer",
    "mlserver": "/v2/models/ranker/infer",
    "ray serve": "/infer",
}
TYPES = {"int64": "INT64", "int32": "INT32", "float32": "FP32", "bool": "BOOL"}
_DTYPES = {name: dtype for dtype, name in TYPES.items()}


class Graph:
    """The ONNX file, asked with lists."""

    def __init__(self, path: str) -> None:
        """One thread, as the endpoint's workers have."""
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self._names = [output.name for output in self._session.get_outputs()]

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """A response of the protocol to a request of it."""
        feeds = {
            tensor["name"]: np.array(tensor["data"], _DTYPES[tensor["datatype"]]).reshape(tensor["shape"])
            for tensor in body["inputs"]
        }
        values: list[Any] = list(self._session.run(self._names, feeds))
        outputs = [
            {"name": name, "shape": value.shape, "datatype": "FP32", "data": value.ravel().tolist()}
            for name, value in zip(self._names, values, strict=True)
        ]
        return {"model_name": "ranker", "outputs": outputs}


def fastapi(job: dict[str, Any]) -> None:
    """FastAPI with orjson under uvicorn, as applications are written by hand."""
    import uvicorn

    uvicorn.run("serving_peers:fastapi_app", factory=True, port=job["port"], workers=job["workers"], log_level="error")


def fastapi_app() -> Any:
    """The application of one worker; its model is named by the environment."""
    import orjson  # pyright: ignore[reportMissingImports]
    from fastapi import FastAPI, Request, Response

    app, graph = FastAPI(), Graph(os.environ["MODEL"])

    async def infer(request: Request) -> Response:
        return Response(orjson.dumps(graph.answer(orjson.loads(await request.body()))), media_type="application/json")

    infer.__annotations__ = {"request": Request, "return": Response}  # they are names inside this function
    app.post("/infer")(infer)
    return app


def ray_serve(job: dict[str, Any]) -> None:
    """Ray Serve: a replica per worker behind its proxy."""
    import signal

    import ray
    from ray import serve

    @serve.deployment(num_replicas=job["workers"], ray_actor_options={"num_cpus": 0}, max_ongoing_requests=100)
    class Ranker:
        def __init__(self) -> None:
            self._graph = Graph(job["model"])

        async def __call__(self, request: Any) -> Any:
            import orjson  # pyright: ignore[reportMissingImports]
            from starlette.responses import Response

            return Response(orjson.dumps(self._graph.answer(orjson.loads(await request.body()))))

    ray.init(num_cpus=job["workers"], include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"port": job["port"]})
    serve.run(Ranker.bind(), route_prefix="/infer")  # pyright: ignore[reportAttributeAccessIssue]
    signal.sigwait({signal.SIGTERM, signal.SIGINT})


def bentoml(job: dict[str, Any]) -> None:
    """BentoML: a service with one API."""
    service = Path(job["folder"]) / "service.py"
    service.write_text(
        "from __future__ import annotations\n"
        "import os, sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "import bentoml\n"
        "from serving_peers import Graph\n"
        f"@bentoml.service(workers={job['workers']}, traffic={{'timeout': 30, 'max_concurrency': 1000}})\n"
        "class Ranker:\n"
        "    def __init__(self) -> None:\n"
        "        self.graph = Graph(os.environ['MODEL'])\n"
        "    @bentoml.api\n"
        "    def infer(self, inputs: list) -> dict:\n"
        "        return self.graph.answer({'inputs': inputs})\n"
    )
    _main("bentoml", ["serve", "service:Ranker", "--port", str(job["port"]), "--working-dir", job["folder"]])


def mlserver(job: dict[str, Any]) -> None:
    """MLServer: a runtime of one's own; workers beside the server where there are several."""
    folder = Path(job["folder"])
    (folder / "runtime.py").write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from mlserver import MLModel\n"
        "from mlserver.types import InferenceRequest, InferenceResponse\n"
        "from serving_peers import Graph\n"
        "class Ranker(MLModel):\n"
        "    async def load(self) -> bool:\n"
        "        self.graph = Graph(self.settings.parameters.uri)\n"
        "        return True\n"
        "    async def predict(self, payload: InferenceRequest) -> InferenceResponse:\n"
        "        return InferenceResponse(**self.graph.answer(payload.model_dump()))\n"
    )
    model = {"name": "ranker", "implementation": "runtime.Ranker", "parameters": {"uri": job["model"]}}
    (folder / "model-settings.json").write_text(json.dumps(model))
    parallel = 0 if job["workers"] == 1 else job["workers"]
    ports = {"http_port": job["port"], "grpc_port": job["port"] + 1, "metrics_port": job["port"] + 2}
    settings = {"debug": False, "parallel_workers": parallel, **ports}
    (folder / "settings.json").write_text(json.dumps(settings))
    os.chdir(folder)
    _main("mlserver", ["start", "."])


def _main(name: str, arguments: list[str]) -> None:
    """The library's own command."""
    command = Path(sys.executable).with_name(name)
    sys.argv = [str(command), *arguments]
    runpy.run_path(str(command), run_name="__main__")


if __name__ == "__main__":
    of_job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    os.environ |= {"MODEL": of_job["model"], "OMP_NUM_THREADS": "1"}
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    servers = {"fastapi": fastapi, "bentoml": bentoml, "mlserver": mlserver, "ray serve": ray_serve}
    servers[of_job["library"]](of_job)
