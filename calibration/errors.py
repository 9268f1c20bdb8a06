"""Errors of calibration and quantization."""


class DataError(Exception):
    """A data file cannot be used: missing, broken at a line, empty, or too short."""


class CheckpointError(Exception):
    """The source checkpoint cannot be quantized: incomplete, not finite, or of an unsupported family."""


class QuantizationIncomplete(Exception):
    """Modules would stay unquantized, or a scale is zero or not finite."""


class ActivationsUnusable(Exception):
    """Activations are not finite, explode, or never reach a module."""


class ResumeRefused(Exception):
    """An interrupted pass was made with other inputs."""


class MemoryExceeded(Exception):
    """Calibration took more memory than the recipe allows."""
