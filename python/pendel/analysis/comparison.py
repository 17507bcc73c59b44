"""How far a reconstruction is from the truth, after removing what the data cannot determine.

A Bragg data set fixes the crystal function only up to a constant phase and a translation (the rocking offset and the
detector's centre add a linear phase). `compare` removes the first two, on request the phase ramp, the amplitude scale
and the conjugate twin, all of them by maximising |<truth, S>|.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from numpy.typing import ArrayLike
from scipy import fft, ndimage

from ..base import checks
from ..base.printing import brief
from ..base.symmetry import along, strain
from ..base.symmetry import translate as translated
from ..base.symmetry import twin as conjugate_twin

LARGEST = 1e60  # whose fourth powers, summed, are finite


@dataclasses.dataclass
class Comparison:
    """Result of `compare`. "Inside" is |truth| > half its maximum (and the support).

    Attributes
    ----------
    phase_rmse : rms of arg(S conj(truth)) inside, rad.
    phase_rmse_weighted : the same, weighted by |S||truth|.
    amplitude_rmse : rms of |S| - |truth| inside, over the rms of |truth|.
    amplitude_cv : standard deviation over mean of |S| inside.
    amplitude_cv_truth : the same of |truth|: partial-volume voxels are inside too.
    relative_error : ||S - truth|| / ||truth|| over the whole grid.
    strain_rmse : rms error of the strain along h inside; None without h.
    shift : (z, y, x) voxels by which S was moved.
    phase : rad added to S.
    ramp : (x, y, z) rad/m: exp(i ramp.r) was multiplied to S; zeros unless asked for.
    scale : real factor multiplied to S.
    twin : whether the conjugate twin of S was taken.
    registered : complex128 (nz, ny, nx), S after all of this.
    inside : bool (nz, ny, nx).
    """

    phase_rmse: float
    phase_rmse_weighted: float
    amplitude_rmse: float
    amplitude_cv: float
    amplitude_cv_truth: float
    relative_error: float
    strain_rmse: float | None
    shift: tuple[float, float, float]
    phase: float
    ramp: np.ndarray
    scale: float
    twin: bool
    registered: np.ndarray
    inside: np.ndarray

    __repr__ = brief

    def __str__(self):
        strain = "" if self.strain_rmse is None else f", strain rmse {self.strain_rmse:.2e}"
        twin = "; of the conjugate TWIN" if self.twin else ""
        return (
            f"phase rmse {self.phase_rmse:.4f} rad (weighted {self.phase_rmse_weighted:.4f}), "
            f"amplitude rmse {self.amplitude_rmse:.4f}, cv {self.amplitude_cv:.4f} "
            f"(truth {self.amplitude_cv_truth:.4f}), relative error {self.relative_error:.4f}{strain}{twin}"
        )


def compare(
    S: ArrayLike,
    truth: ArrayLike,
    voxel: tuple[float, float, float],
    support: ArrayLike | None = None,
    band: float | ArrayLike | None = None,
    h: ArrayLike | None = None,
    *,
    translate: bool = True,
    ramp: bool = False,
    scale: bool = False,
    twin: bool = False,
) -> Comparison:
    """Register S to truth and measure the difference, in complex128.

    Peaks of the cross-correlation are found by FFT, then on a raster of 1/8 voxel (matrix DFT; Guizar-Sicairos et al.,
    Opt. Lett. 33, 156, 2008), then by Newton's method on |C|^2. A ramp is the same problem with direct and reciprocal
    space exchanged; the two alternate until neither moves.

    Parameters
    ----------
    S, truth : complex (nz, ny, nx).
    voxel : (dz, dy, dx), m.
    support : bool (nz, ny, nx), restricts "inside".
    band : limit both functions before anything else: a bool array (nz, ny, nx) in centred order (zero frequency at
        n//2), or a fraction of the Nyquist frequencies (ellipsoid).
    h : (x, y, z) rad/m, asks for the strain along h, -grad(phi).h/|h|^2.
    translate : allow a translation (sub-voxel, periodic).
    ramp : allow a linear phase.
    scale : allow a real factor.
    twin : also try conj(S(-r)) and take the better one.

    Returns
    -------
    Comparison.

    Raises
    ------
    TypeError, ValueError : naming the parameter.
    """
    truth = checks.array("truth", truth, (None, None, None), np.complex128, axes="(nz, ny, nx)")
    S = checks.array("S", S, truth.shape, np.complex128, axes="(nz, ny, nx)")
    voxel = np.array(checks.lengths("voxel", voxel, 3))
    for name, values in (("S", S), ("truth", truth)):
        if np.abs(values).max(initial=0) > LARGEST:
            raise ValueError(f"{name}: expected values up to {LARGEST:g}, got {np.abs(values).max():.3g}")
    if not truth.any() or not S.any():
        raise ValueError("S, truth: expected non-zero functions, got zeros")
    inside = _inside(truth, support)
    if band is not None:
        band = _band(band, truth.shape)
        S, truth = (fft.ifftn(fft.fftn(a) * band) for a in (S, truth))

    S, shift, slope, twinned = _best_register(S, truth, translate, ramp, twin)
    phase = -float(np.angle(np.vdot(truth[inside], S[inside])))
    S = S * np.exp(1j * phase)
    factor = float(np.vdot(S, truth).real / np.vdot(S, S).real) if scale else 1.0
    S = S * factor

    return Comparison(
        **_differences(S[inside], truth[inside]),
        relative_error=float(np.linalg.norm(S - truth) / np.linalg.norm(truth)),
        strain_rmse=None if h is None else _strain_rmse(S, truth, inside, voxel, h),
        shift=(float(shift[0]), float(shift[1]), float(shift[2])),
        phase=phase,
        ramp=(slope / voxel)[::-1],
        scale=factor,
        twin=twinned,
        registered=S,
        inside=inside,
    )


def _inside(truth, support):
    magnitude = np.abs(truth)
    inside = magnitude > 0.5 * magnitude.max()
    if support is not None:
        inside &= checks.array("support", support, truth.shape, bool, axes="(nz, ny, nx)")
        if not inside.any():
            raise ValueError("support: expected an overlap with |truth| > max/2, got none")
    return inside


def _differences(S, truth):
    """The measures of `Comparison` that are of voxels inside, both (voxels,)."""
    error = np.angle(S * truth.conj())
    amplitude = np.abs(S)
    expected = np.abs(truth)
    weight = amplitude * expected
    return {
        "phase_rmse": _rms(error),
        "phase_rmse_weighted": float(np.sqrt((weight * error**2).sum() / weight.sum())),
        "amplitude_rmse": _rms(amplitude - expected) / _rms(expected),
        "amplitude_cv": float(amplitude.std() / amplitude.mean()),
        "amplitude_cv_truth": float(expected.std() / expected.mean()),
    }


def _best_register(S, truth, move, ramp, twin):
    """`_register` of S or of its twin, whichever is more like truth, and whether it is the twin."""
    trials = [(*_register(S, truth, move, ramp), False)]
    if twin:
        trials.append((*_register(conjugate_twin(S), truth, move, ramp), True))
    return trials[int(np.argmax([abs(np.vdot(truth, trial[0])) for trial in trials]))]


def _register(S, truth, move, ramp):
    """S sloped and moved to maximise |<truth, S>|; returns (S, shift in voxels, slope in rad/voxel), all (z, y, x)."""
    start = S
    shift = np.zeros(3)
    slope = np.zeros(3)
    index = [np.arange(n) - n // 2 for n in S.shape]
    if move:
        # amplitudes do not know the ramp
        pair = (np.abs(S), np.abs(truth)) if ramp else (S, truth)
        shift = -_peak(fft.fftn(pair[0]) * fft.fftn(pair[1]).conj())
        S = translated(start, shift)
    for _ in range(30 if ramp else 0):
        change = 2 * np.pi * _peak(fft.ifftshift(S * truth.conj())) / S.shape
        slope = slope + change
        sloped = start * np.exp(1j * _plane(index, slope))
        if move:
            found = -_peak(fft.fftn(sloped) * fft.fftn(truth).conj())
            change = np.concatenate([change, found - shift])
            shift = found
        S = translated(sloped, shift)
        if np.abs(change).max() < 1e-11:
            break
    return S, shift, slope


def _peak(P):
    """Where |C(d)|, C(d) = sum_k P_k exp(2 pi i k.d), is largest: d (z, y, x). P in FFT order, k in cycles."""
    frequency = [fft.fftfreq(n) for n in P.shape]
    shape = np.array(P.shape)
    d = np.array(np.unravel_index(np.argmax(np.abs(fft.ifftn(P))), P.shape))
    d = (d + shape // 2) % shape - shape // 2

    raster = np.arange(-6, 7) / 8
    C = _contract(P, [np.exp(2j * np.pi * np.outer(k, c + raster)) for k, c in zip(frequency, d, strict=True)])
    d = d + raster[np.array(np.unravel_index(np.argmax(np.abs(C)), C.shape))]

    for _ in range(20):
        step = _newton_step(P, frequency, d)
        d = d + step
        if np.abs(step).max() < 1e-13:
            break
    return d


def _newton_step(P, frequency, d):
    """Newton step of log|C|^2 at d, at most 1/8 sample per axis, always uphill."""
    turns = [2j * np.pi * k for k in frequency]
    # C and its derivatives, by the order along each axis, over C
    C = _contract(P, [np.exp(t * c)[:, None] * t[:, None] ** np.arange(3) for t, c in zip(turns, d, strict=True)])
    C /= C[0, 0, 0]
    one = np.eye(3, dtype=int)
    slope = np.array([C[tuple(i)] for i in one])
    curvature = np.array([[C[tuple(i + j)] for j in one] for i in one]) - np.outer(slope, slope)
    values, vectors = np.linalg.eigh(curvature.real)
    # an axis of one sample has neither slope nor curvature
    scale = np.maximum(np.abs(values), 1e-30)
    return np.clip(vectors @ (vectors.T @ slope.real / scale), -1 / 8, 1 / 8)


def _contract(P, weights):
    """sum_zyx P[z,y,x] weights[0][z,a] weights[1][y,b] weights[2][x,c] as an array [a,b,c]."""
    for axis in (2, 1, 0):
        P = np.tensordot(P, weights[axis], ([axis], [0]))
        # tensordot puts the new axis last; the axes before `axis` keep their places
    return P.transpose(2, 1, 0)


def _plane(index, slope):
    """slope.r (nz, ny, nx), rad."""
    return slope[0] * index[0][:, None, None] + slope[1] * index[1][:, None] + slope[2] * index[2]


def _band(band, shape):
    """The band as a bool array in FFT order."""
    if np.ndim(band) == 0:
        fraction = checks.number("band", band, above=0, at_most=np.sqrt(3))
        radius = sum(along((2 * fft.fftfreq(n)) ** 2, axis) for axis, n in enumerate(shape))
        return radius <= fraction**2
    return fft.ifftshift(checks.array("band", band, shape, bool, axes="(nz, ny, nx)"))


def _rms(values):
    return float(np.sqrt(np.mean(np.square(values))))


def _strain_rmse(S, truth, inside, voxel, h):
    found, found_at = strain(S, voxel, h)
    expected, expected_at = strain(truth, voxel, h)
    core = ndimage.binary_erosion(inside) & found_at & expected_at
    return _rms((found - expected)[core]) if core.any() else float("nan")
