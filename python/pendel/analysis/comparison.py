"""How far a reconstruction is from the truth, after removing what the data cannot determine.

A Bragg data set fixes the crystal function only up to a constant phase and a translation (the rocking offset and the
detector's centre add a linear phase). `compare` removes the first two, on request the phase ramp, the amplitude scale
and the conjugate twin, all of them by maximising |<truth, S>|.
"""

import dataclasses

import numpy as np
from scipy import fft, ndimage

from ..base import checks
from ..base.symmetry import along, strain, translate
from ..base.symmetry import twin as conjugate_twin


@dataclasses.dataclass
class Comparison:
    """Result of `compare`; phases in rad. "Inside" is |truth| > half its maximum (and the support)."""

    phase_rmse: float  # rms of arg(S conj(truth)) inside
    phase_rmse_weighted: float  # the same, weighted by |S||truth|
    amplitude_rmse: float  # rms of |S| - |truth| inside, over the rms of |truth|
    amplitude_cv: float  # standard deviation over mean of |S| inside
    amplitude_cv_truth: float  # the same of |truth|: partial-volume voxels are inside too
    relative_error: float  # ||S - truth|| / ||truth|| over the whole grid
    strain_rmse: float | None  # rms error of the strain along h inside (needs h)
    shift: tuple  # (z, y, x) voxels by which S was moved
    phase: float  # rad added to S
    ramp: np.ndarray  # (x, y, z) rad/m: exp(i ramp.r) was multiplied to S; zeros unless ramp=True
    scale: float  # real factor multiplied to |S|
    twin: bool  # whether the conjugate twin of S was taken
    registered: np.ndarray  # complex128 (nz, ny, nx), S after all of this
    inside: np.ndarray  # bool (nz, ny, nx)

    def __str__(self):
        strain = "" if self.strain_rmse is None else f", strain rmse {self.strain_rmse:.2e}"
        return (
            f"phase rmse {self.phase_rmse:.4f} rad (weighted {self.phase_rmse_weighted:.4f}), "
            f"amplitude rmse {self.amplitude_rmse:.4f}, cv {self.amplitude_cv:.4f} "
            f"(truth {self.amplitude_cv_truth:.4f}), relative error {self.relative_error:.4f}{strain}"
        )


def compare(
    S, truth, voxel, support=None, band=None, h=None, *, translate=True, ramp=False, scale=False, twin=False
) -> Comparison:
    """Register S to truth and measure the difference, in complex128.

    Parameters
    ----------
    S, truth : complex (nz, ny, nx).
    voxel : (dz, dy, dx) in m.
    support : bool (nz, ny, nx), restricts "inside".
    band : limit both functions before anything else: a bool array (nz, ny, nx) in centred order (zero frequency at
        n//2), or a fraction of the Nyquist frequencies (ellipsoid).
    h : (x, y, z) rad/m, asks for the strain along h, -grad(phi).h/|h|^2.
    translate : allow a translation (sub-voxel, periodic).
    ramp : allow a linear phase.
    scale : allow a real factor.
    twin : also try conj(S(-r)) and take the better one.

    Raises TypeError or ValueError naming the parameter.

    Peaks of the cross-correlation are found by FFT, then on a raster of 1/8 voxel (matrix DFT; Guizar-Sicairos et al.,
    Opt. Lett. 33, 156, 2008), then by Newton's method on |C|^2. A ramp is the same problem with direct and reciprocal
    space exchanged; the two alternate until neither moves.
    """
    truth = checks.array("truth", truth, (None, None, None), np.complex128, axes="(nz, ny, nx)")
    S = checks.array("S", S, truth.shape, np.complex128, axes="(nz, ny, nx)")
    voxel = np.array(checks.lengths("voxel", voxel, 3))
    magnitude = np.abs(truth)
    if not magnitude.any() or not S.any():
        raise ValueError("S, truth: expected non-zero functions, got zeros")
    inside = magnitude > 0.5 * magnitude.max()
    if support is not None:
        inside &= checks.array("support", support, truth.shape, bool, axes="(nz, ny, nx)")
        if not inside.any():
            raise ValueError("support: expected an overlap with |truth| > max/2, got none")
    if band is not None:
        band = _band(band, truth.shape)
        S, truth = (fft.ifftn(fft.fftn(a) * band) for a in (S, truth))

    candidates = [False, True] if twin else [False]
    trials = [_register(conjugate_twin(S) if t else S, truth, translate, ramp) for t in candidates]
    best = int(np.argmax([abs(np.vdot(truth, trial[0])) for trial in trials]))
    S, shift, slope = trials[best]
    phase = -float(np.angle(np.vdot(truth[inside], S[inside])))
    S = S * np.exp(1j * phase)
    factor = float(np.vdot(S, truth).real / np.vdot(S, S).real) if scale else 1.0
    S = S * factor

    a, b = S[inside], truth[inside]
    error = np.angle(a * b.conj())
    weight = np.abs(a) * np.abs(b)
    return Comparison(
        phase_rmse=_rms(error),
        phase_rmse_weighted=float(np.sqrt((weight * error**2).sum() / weight.sum())),
        amplitude_rmse=_rms(np.abs(a) - np.abs(b)) / _rms(np.abs(b)),
        amplitude_cv=float(np.abs(a).std() / np.abs(a).mean()),
        amplitude_cv_truth=float(np.abs(b).std() / np.abs(b).mean()),
        relative_error=float(np.linalg.norm(S - truth) / np.linalg.norm(truth)),
        strain_rmse=None if h is None else _strain_rmse(S, truth, inside, voxel, h),
        shift=tuple(float(s) for s in shift),
        phase=phase,
        ramp=(slope / voxel)[::-1],
        scale=factor,
        twin=candidates[best],
        registered=S,
        inside=inside,
    )


def _register(S, truth, move, ramp):
    """S sloped and moved to maximise |<truth, S>|; returns (S, shift in voxels, slope in rad/voxel), all (z, y, x)."""
    start, shift, slope = S, np.zeros(3), np.zeros(3)
    index = [np.arange(n) - n // 2 for n in S.shape]
    if move:  # amplitudes do not know the ramp
        pair = (np.abs(S), np.abs(truth)) if ramp else (S, truth)
        shift = -_peak(fft.fftn(pair[0]) * fft.fftn(pair[1]).conj())
        S = translate(start, shift)
    for _ in range(30 if ramp else 0):
        change = 2 * np.pi * _peak(fft.ifftshift(S * truth.conj())) / S.shape
        slope = slope + change
        sloped = start * np.exp(1j * _plane(index, slope))
        if move:
            found = -_peak(fft.fftn(sloped) * fft.fftn(truth).conj())
            change = np.concatenate([change, found - shift])
            shift = found
        S = translate(sloped, shift)
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
    core = ndimage.binary_erosion(inside)
    (a, ok_a), (b, ok_b) = strain(S, voxel, h), strain(truth, voxel, h)
    core &= ok_a & ok_b
    return _rms((a - b)[core]) if core.any() else float("nan")
