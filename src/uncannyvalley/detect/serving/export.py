"""A detector as an ONNX file, for runtimes without Python."""

import os
import tempfile
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from uncannyvalley.data.packages import need
from uncannyvalley.detect.serving.module import DetectorModule
from uncannyvalley.errors import InputError
from uncannyvalley.storing.files import write_bytes
from uncannyvalley.storing.places import place_of

OUTPUTS = ("logits", "log_relative_sharpness", "p_value", "flag")
"""Names of the outputs, in order."""

SUSPICION = "suspicion"

INPUT = "images"

OPSET = 18

_INSTALL = 'pip install "uncannyvalley[onnx]"'


class _Scored(nn.Module):
    """All outputs in one flat tuple."""

    def __init__(self, module: DetectorModule, suspicion: bool) -> None:
        super().__init__()
        self.module, self.suspicion = module, suspicion

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        if not self.suspicion:
            return tuple(self.module(x))
        verdict, suspicion = self.module.scored(x)
        return (*verdict, suspicion)


def export_onnx(
    module: DetectorModule, path: str | Path, sample: Tensor, *, suspicion: bool = False, opset: int = OPSET
) -> None:
    """Write ``module`` as an ONNX file with one input ``images`` (any batch size) and ``OUTPUTS``.

    module     whose numbers the file gives to 1e-4; what follows the logits is computed in float64 there too
    sample     (n, …) float images of the shape that will be asked about, on the module's device
    suspicion  whether a fifth output gives the suspicion (n,) in nats, for a Monitor

    Raises InputError where the packages of the extra ``onnx`` are missing, for samples of another shape, and where an
    operation of the network or of a change has no ONNX form.
    """
    for package in ("onnx", "onnxscript"):
        need(package, "an export to ONNX", _INSTALL)
    if not isinstance(sample, Tensor) or tuple(sample.shape[1:]) != module.sample_shape:
        shape = tuple(sample.shape) if isinstance(sample, Tensor) else type(sample).__name__
        raise InputError(f"sample must hold images of shape {module.sample_shape}, n of them; got {shape}")
    rows = torch.cat([sample[:1], sample[:1]])  # an axis of length 1 would be taken for a constant
    names = [*OUTPUTS, SUSPICION] if suspicion else list(OUTPUTS)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        scratch = os.path.join(folder, "detector.onnx")
        try:
            torch.onnx.export(
                _Scored(module.in_plain_layout(), suspicion).eval(), (rows,), scratch, dynamo=True, opset_version=opset, verbose=False,
                input_names=[INPUT], output_names=names, dynamic_shapes=({0: torch.export.Dim("n")},), external_data=False,
            )  # fmt: skip
        except Exception as error:  # the exporter wraps whatever it meets
            first_line = str(error).strip().split("\n")[0]
            raise InputError(f"this detector cannot be exported to ONNX: {first_line}") from error
        write_bytes(place_of(str(path)), Path(scratch).read_bytes())
