"""What a `Result` lets one expect in every pixel: scale times the modelled frames, and the background beside them."""

import numpy as np

from ..base.arrays import host
from .refinement import dq_at


def expected_counts(model, result):
    """Counts, float64 (n_frames, rows, cols), that S, s_0 and all corrections of a `Result` lets one expect.

    model : `Model` on the voxels of the result; its own point spread and coherence count where the result has none
    """
    dq = None if result.angle_offsets is None else dq_at(model.experiment, result.angle_offsets)[0]
    scan = {"dq": dq, "flux": result.flux, "point_spread": result.point_spread, "coherence": result.coherence}
    D = model.intensities_on_host(result.S, None, result.s_0, **scan)
    expected = result.scale * D.astype(np.float64)
    for background in (result.background, result.background_level):
        if background is not None:
            background = np.asarray(host(background), np.float64)
            expected += background[:, None, None] if background.ndim == 1 else background
    return expected
