"""Networks as programs that run without this package: StableHLO and ONNX (docs/export.md)."""
