"""The command line, drafting of specs, reports, and the tests of the model contract."""

from rec import telemetry

telemetry.switch_off()  # before ONNX Runtime is loaded
