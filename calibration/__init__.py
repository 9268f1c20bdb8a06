"""From text to scales: calibration data and quantization through ModelOpt."""
