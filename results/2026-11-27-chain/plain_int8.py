"""int8 as ONNX Runtime's quantize_static makes it: QDQ, MinMax, per channel, 8 bits, 512 of the student's training images.

    python plain_int8.py STUDENT FLOAT32.onnx OUT.onnx
"""

import sys
from pathlib import Path

from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from distillscope.students.export.images import own_images, pixels_of
from distillscope.students.load import load_student

folder, source, out = map(Path, sys.argv[1:4])
pixels = pixels_of(own_images(folder, 512), load_student(folder, "cpu").preprocess)


class Images(CalibrationDataReader):
    """Batches of 64."""

    def __init__(self) -> None:
        self.batches = iter({"images": pixels[i : i + 64]} for i in range(0, len(pixels), 64))

    def get_next(self) -> dict | None:
        return next(self.batches, None)


ready = out.with_suffix(".ready.onnx")
quant_pre_process(str(source), str(ready))
quantize_static(str(ready), str(out), Images(), quant_format=QuantFormat.QDQ, per_channel=True,
                activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, calibrate_method=CalibrationMethod.MinMax)
ready.unlink()
