"""From a bundle to scores: batch scoring and online ranking through one scorer. Never imports torch, but for export."""

from rec import telemetry

telemetry.switch_off()  # before ONNX Runtime is loaded
