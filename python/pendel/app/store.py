"""What a finished reconstruction leaves behind: a result file with its fit, and its picture."""

from pathlib import Path

from .. import io
from ..fit.stored import fit_to_data, save_result, stored_result, versions

__all__ = ["fit_to_data", "save_picture", "save_result", "stored_result", "versions"]


def save_picture(path: Path | str, result_path: Path | str, *, force: bool = False) -> None:
    """Draw `plot.result_figure` of a result file; ``force`` as in `plot.save`."""
    from ..analysis import plot

    plot.save(plot.result_figure(io.read_result(result_path)), path, force=force)
