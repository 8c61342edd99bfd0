"""A trained detector as one file for other runtimes: its graph, its writers, its readers."""

import sys

# With it OpenVINO and NNCF would tell their makers of each import, from a process that they fork.
sys.modules.setdefault("openvino_telemetry", None)
