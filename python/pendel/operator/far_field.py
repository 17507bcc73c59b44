"""Far field of the exit wave on the pixel axes of a rolled detector, and its adjoint.

The exit field E_h[y, x] lies on the model axes (x in the scattering plane, y normal to it). The detector samples
its Fourier transform along the column and row directions, turned against these axes by the roll angle:

(1) F[row, col] = (N_y N_x)^(-1/2) sum_{y,x} E_h[y, x] exp(-2 pi i (c e_col + r e_row) . r / L),
    c = col - cols//2 - dcol,   r = row - rows//2 - drow,   r = ((x - nx//2) L/N_x, (y - ny//2) L/N_y),
    e_col = (cos roll, sin roll),   e_row = (-sin roll, cos roll), or its opposite with ``flip_rows``.

L = wavelength * distance / detector pixel is the field of view, N_y and N_x its size in model pixels.
The turn is the three-shear rotation of Unser, Thevenaz & Yaroslavsky, IEEE Trans. Image Process. 4, 1371 (1995),

(2) rot(a) = shear_x(-tan a/2) shear_y(sin a) shear_x(-tan a/2),   |a| <= 45 deg,

each shear a row- or column-wise Fourier shift, thus unitary; quarter and half turns are a transpose of the exit field
and reversals of the frequency index. The inverse FFT of the last x shear cancels against the x pass of (1).
All origins, the fractional centre (drow, dcol) and the frequency window are linear phases merged into those of the
shears, so that every FFT reads and writes arrays that start at index 0 and only kept rows and columns are computed.
"""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import scipy.fft

from ..base import checks
from ..base.arrays import is_finite
from .cpu_engine import Cpu, available_threads
from .fields import refuse_overflow

# Frames handled together by one thread: few enough to stay in its cache, enough to hide the interpreter's overhead.
CHUNK = 4
# Empty pixels kept around the turned box (per axis, both sides together, at least). They keep the sinc tails that a
# Fourier shift gives to sharp edges from wrapping onto the other side of the box within the shears.
MARGIN = 16


# Bytes of one far field of all frames handled together on a device, which wants long arrays.
DEVICE_BYTES = 128 << 20


def map_chunks(function, count, workers, size=CHUNK):
    """List of ``function(slice)`` over slices of at most ``size`` of ``range(count)``, on ``workers`` threads.

    The slices do not depend on the number of threads, hence neither do the results.
    """
    chunks = [slice(i, min(i + size, count)) for i in range(0, count, size)]
    if workers == 1 or len(chunks) <= 1:
        return [function(chunk) for chunk in chunks]
    with ThreadPoolExecutor(min(workers, len(chunks))) as pool:
        return list(pool.map(function, chunks))


def far_shape_for(detector_shape, roll, offset=(0.0, 0.0)):
    """Smallest even FFT-friendly N so that the turned detector lies in the band of an N x N model plane.

    Parameters: detector_shape (rows, cols), roll (rad), offset (row, col) of the pixel hit by k_h from the array
    centre n//2. For a centred square detector of n pixels N >= n (|cos roll| + |sin roll|). Factors 2, 3, 5, 7.
    """
    rows, cols = detector_shape
    c, s = abs(math.cos(roll)), abs(math.sin(roll))
    half = [0.5 * n + abs(d) for n, d in zip((rows, cols), offset, strict=True)]
    size = max(2 * max(half[1] * c + half[0] * s, half[1] * s + half[0] * c), rows, cols)
    size = math.ceil(size - 1e-9)  # a whole number but for the rounding of cos and sin
    while size % 2 or scipy.fft.next_fast_len(size) != size or size % 11 == 0:
        size += 1
    return size


class FarField:
    """The unitary map (1) from exit fields to detector amplitudes, and its adjoint.

    Parameters
    ----------
    shape : (ny, nx) of the exit fields, at most ``far_shape``.
    far_shape : N or (N_y, N_x), size of the whole far field: the field of view divided by the model pixel.
    detector_shape : (rows, cols), at most N each. Zero frequency lies at (rows//2, cols//2) + ``centre_offset``.
    roll : rad, from model x towards model y to the direction of growing column.
    flip_rows : whether growing row is 90 deg clockwise of growing column (True) or anticlockwise.
    centre_offset : (drow, dcol), pixels, any real numbers.
    dtype : "complex64" or "complex128" of both sides; phases are always computed in double.
    workers : threads, None for all CPUs of this process (or PENDEL_NUM_THREADS). Results do not depend on it.
    engine : of a `TakagiTaupin`, where the arrays and the FFT are to be, see `pendel.operator.engine`; None: NumPy
        and SciPy.

    What is not zero in the exit field must stay within the field of view when it is turned, and a detector pixel
    outside the band of the model plane receives its periodic copy; ``far_shape_for`` gives a size that avoids this.
    Raises TypeError or ValueError that name the argument.
    """

    def __init__(
        self,
        shape,
        far_shape,
        detector_shape,
        roll=0.0,
        flip_rows=False,
        centre_offset=(0.0, 0.0),
        dtype="complex64",
        workers=None,
        engine=None,
    ):
        self.shape = checks.sizes("shape", shape, 2)
        self.far_shape = checks.sizes("far_shape", (far_shape,) * 2 if np.ndim(far_shape) == 0 else far_shape, 2)
        self.detector_shape = checks.sizes("detector_shape", detector_shape, 2)
        self.roll = checks.number("roll", roll)
        self.flip_rows = bool(flip_rows)
        self.centre_offset = checks.numbers_of("centre_offset", centre_offset, 2)
        self.dtype = checks.complex_dtype("dtype", dtype)
        self.workers = available_threads() if workers is None else checks.integer("workers", workers, at_least=1)
        self.engine = Cpu() if engine is None else engine
        if any(n > far for n, far in zip(self.shape, self.far_shape, strict=True)):
            raise ValueError(f"shape: expected at most far_shape = {self.far_shape}, got {self.shape}")
        if max(self.detector_shape) > min(self.far_shape):
            raise ValueError(
                f"detector_shape: expected at most far_shape = {self.far_shape}, got {self.detector_shape}"
            )
        self._build()
        # frames at a time, and threads: a device is given one task after another
        self.chunk = CHUNK
        if self.engine.xp is not np:
            self.chunk = max(1, DEVICE_BYTES // (max(self._work) * max(self._far) * self.dtype.itemsize))
            self.workers = 1

    @property
    def _fft(self):
        """Module of the transforms; not kept, for modules cannot be pickled."""
        return self.engine.scipy("fft")

    def _build(self):
        (ny, nx), (far_y, far_x) = self.shape, self.far_shape
        roll, flip = math.remainder(self.roll, 2 * math.pi), self.flip_rows
        # An odd number of quarter turns is left to a transpose: x and y trade places, the roll is counted from y.
        self._transposed = abs(math.sin(roll)) > abs(math.cos(roll))
        if self._transposed:
            (ny, nx), (far_y, far_x) = (nx, ny), (far_x, far_y)
            roll, flip = math.remainder(math.pi / 2 - roll, 2 * math.pi), not flip
        # The content is turned by -roll = turn + (0 or 180 deg).
        half_turn = math.cos(roll) < 0
        turn = math.remainder(-roll - math.pi * half_turn, 2 * math.pi)
        self._signs = (-1 if half_turn != flip else 1), (-1 if half_turn else 1)  # of the row and column frequency
        self._far = far_y, far_x
        self._box = ny, nx
        alpha, beta = -math.tan(turn / 2), math.sin(turn)
        self._shears = beta != 0
        if self._shears:
            # Extent of the turned box in the field of view, after (2)'s first shear too, in model pixels.
            width, height, c = nx / far_x, ny / far_y, math.cos(turn)
            wide = max(width - alpha * height, width + alpha * height, width * c + height * abs(beta))
            high = height * c + width * abs(beta)
            wide, high = (
                min(far, scipy.fft.next_fast_len(math.ceil(max(extent * far, n) + MARGIN)))
                for extent, far, n in ((wide, far_x, nx), (high, far_y, ny))
            )
        else:
            wide, high = nx, ny
        self._work = high, wide
        y, x = np.arange(high) - high // 2, np.arange(wide) - wide // 2
        row, col = (np.arange(n) - n // 2 - d for n, d in zip(self.detector_shape, self.centre_offset, strict=True))
        k_row, k_col = self._signs[0] * row, self._signs[1] * col

        def phase(cycles, factor=1.0):
            turned = (factor * np.exp(-2j * np.pi * (cycles - np.rint(cycles)))).astype(self.dtype)
            return self.engine.upload(turned)

        # Frequency k_col[c] = k_col[0] +- c: the FFT gives exp(-2 pi i (+- c) i/N), the window's start is a ramp.
        start_x = np.arange(wide) * (k_col[0] / far_x)
        if self._shears:
            shift = wide // 2 - nx // 2 + alpha * (np.arange(ny) - ny // 2) * (far_x / far_y)
            self._phase_1 = phase(scipy.fft.fftfreq(wide) * shift[:, None])
            shift = high // 2 - ny // 2 + beta * x * (far_y / far_x)
            self._phase_2 = phase(scipy.fft.fftfreq(high)[:, None] * shift + start_x)
        else:
            self._phase_2 = phase(start_x)
        start_y = np.arange(high) * (k_row[0] / far_y)
        cycles = y[:, None] * (alpha / far_y) * k_col - k_col * (wide // 2 / far_x) + start_y[:, None]
        self._phase_3 = phase(cycles, (far_x * far_y) ** -0.5)
        self._phase_row = phase(-k_row * (high // 2 / far_y))[:, None]

    @property
    def chunk_bytes(self):
        """What a thread takes for its frames: an array and the one that is made of it, at the largest step."""
        (high, wide), (far_y, far_x), (_, cols) = self._work, self._far, self.detector_shape
        steps = 2 * high * wide, high * (wide + far_x), high * (far_x + cols), cols * (high + far_y)
        return max(steps) * self.chunk * self.dtype.itemsize

    def forward(self, E_h):
        """Detector amplitudes F (n, rows, cols) of exit fields E_h (n, ny, nx), equation (1). Not modified."""
        xp = self.engine.xp
        E_h = self.engine.array("E_h", E_h, (None, *self.shape), self.dtype, axes="(n, ny, nx)")
        F = xp.empty((len(E_h), *self.detector_shape), self.dtype)

        def part(chunk):
            xp.multiply(self.forward_chunk(E_h[chunk]), self._phase_row, out=F[chunk])

        map_chunks(part, len(E_h), self.workers, self.chunk)
        if self.engine.reads_values and not is_finite(F):
            refuse_overflow(self.dtype, E_h=E_h)
        return F

    def adjoint(self, adj_F):
        """Adjoint adj_E_h (n, ny, nx) for adj_F (n, rows, cols): dL = Re sum conj(adj_F) dF. Not modified."""
        adj_F = self.engine.array("adj_F", adj_F, (None, *self.detector_shape), self.dtype, axes="(n, rows, cols)")
        adj_E_h = self.engine.xp.empty((len(adj_F), *self.shape), self.dtype)

        def part(chunk):
            adj_E_h[chunk] = self.adjoint_chunk(adj_F[chunk] * self._phase_row.conj())

        map_chunks(part, len(adj_F), self.workers, self.chunk)
        if self.engine.reads_values and not is_finite(adj_E_h):
            refuse_overflow(self.dtype, adj_F=adj_F)
        return adj_E_h

    def forward_chunk(self, E_h):
        """``forward`` of a few frames, on the calling thread, unchecked, up to a phase that depends on the row only."""
        (high, wide), (far_y, far_x), (rows, cols) = self._work, self._far, self.detector_shape
        if self._transposed:
            E_h = E_h.swapaxes(1, 2)
        if self._shears:
            f = self._fft.fft(E_h, n=wide, axis=2)
            f *= self._phase_1
            f = self._fft.ifft(f, axis=2, overwrite_x=True)
            f = self._fft.fft(f, n=high, axis=1, overwrite_x=True)
            f *= self._phase_2
            f = self._fft.ifft(f, axis=1, overwrite_x=True)
        else:
            f = E_h * self._phase_2
        f = _transform(self._fft, f, far_x, 2, self._signs[1])[:, :, :cols] * self._phase_3
        return _transform(self._fft, f, far_y, 1, self._signs[0])[:, :rows]

    def adjoint_chunk(self, adj_F):
        """Adjoint of ``forward_chunk``; may overwrite ``adj_F``."""
        (ny, nx), (high, wide), (far_y, far_x) = self._box, self._work, self._far
        # Reverse of the y transform, phase 3, the x transform
        f = _transform(self._fft, adj_F, far_y, 1, -self._signs[0])[:, :high] * self._phase_3.conj()
        f = _transform(self._fft, f, far_x, 2, -self._signs[1])[:, :, :wide]
        # Reverse of the y shear and of the first x shear
        if self._shears:
            f = self._fft.fft(f, axis=1)
            f *= self._phase_2.conj()
            f = self._fft.ifft(f, axis=1, overwrite_x=True)[:, :ny]
            f = self._fft.fft(f, axis=2)
            f *= self._phase_1.conj()
            f = self._fft.ifft(f, axis=2, overwrite_x=True)[:, :, :nx]
        else:
            f = f * self._phase_2.conj()
        return f.swapaxes(1, 2) if self._transposed else f


def _transform(fft, f, n, axis, sign):
    """Unnormalised FFT of length n along an axis, with kernel exp(-2 pi i sign j k / n); zero-padded at the end."""
    if sign > 0:
        return fft.fft(f, n=n, axis=axis, overwrite_x=True)
    return fft.ifft(f, n=n, axis=axis, norm="forward", overwrite_x=True)
