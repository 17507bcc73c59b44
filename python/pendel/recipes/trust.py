"""How far a result can be trusted: a verdict, by what photons and voxels explain, by its twin and by itself."""

from dataclasses import dataclass

import numpy as np

from .voxels import counting_noise

# Square residuals over those of photon noise up to which they are taken for noise; chosen: Poisson noise alone gives 1.
ALL_PHOTONS = 1.15
# A crystal that misses its frames by more than so many times photon noise, and so much beside, is another one.
# bench/foreign.py, 1e8 photons (noise 6e-4): on voxels of the data's resolution found ones leave 1.3e-3 to 2.5e-3, a
# domain wall among them, and true ones on such voxels 3.5e-3 to 1.3e-2 before they are fitted; strong (2) as phasing
# ends, 1.6 rad from the truth, 4.7e-2. On the voxels of the result found ones leave 0.9 to 1.3 times noise.
NOISES, BESIDE = 2.0, 1e-2
# Square residuals over those of photon noise above which there is a doubt; chosen. bench/foreign.py, 1e8 photons: all
# disturbances of a beamline leave 1.4 at 0.02 rad.
MISSED = 2.0
# Misfit of the twin over that of the crystal, after the same polish, below which they are alike. bench/foreign.py,
# right crystals: 1.45 with 1e6 photons, 2.4 with 1e7, 4 to 7 with 1e8; of 0.28 um, after searches too short: 1.00
# where the crystal is right, 1.08 where it is the twin; 0.8 where the twin was the crystal (tests/test_solve.py).
ALIKE = 1.15
# Part of the neighbouring voxels of the crystal between which the phase turns by more than a quarter; chosen.
# bench/foreign.py: 0 in smooth crystals, up to 7e-4 with a dislocation, 1e-3 where a porous one's holes are not right.
TURNS = 0.01
# Times the excess that a single frame may have; chosen.
ONE_FRAME = 4.0

LIT = 0.25  # counts that a pixel expects at least to be judged by
SEVERAL = 100  # such pixels that a frame has at least to be judged alone

FOUND, DOUBTED, NOT_FOUND = "found", "found, with doubts", "not found"


@dataclass(frozen=True)
class Trust:
    """How far a `Result` can be trusted, misfits as in `Result.misfit`; as text, a verdict with its reasons.

    Attributes
    ----------
    misfit : of the result.
    noise : of photon noise.
    grid : of the voxels, from voxels half as wide.
    excess : mean square residual over that of photon noise.
    variance : of a pixel that the last fit went by, over that of photons.
    twin : misfit of the conjugate twin over that of the crystal, both after the same short polish on voxels of the
        data's resolution; None where the twin is the same crystal, or was not looked at.
    turns : part of the neighbouring voxels of the crystal between which the phase turns by more than pi/2.
    cut : axes of the box, of "z", "y", "x", whose ends the crystal touches.
    frame, frame_excess : the frame that is missed most, and its own excess.
    verdict : "found", "found, with doubts" or "not found".
    doubts : what speaks against the crystal, each with what to try, a tuple of sentences.
    """

    misfit: float
    noise: float
    grid: float
    excess: float
    variance: float
    twin: float | None = None
    turns: float = 0.0
    cut: str = ""
    frame: int = 0
    frame_excess: float = 0.0

    @property
    def verdict(self) -> str:
        """ "found", "found, with doubts" or "not found"."""
        if misses(self, self.noise):
            return NOT_FOUND
        return DOUBTED if self.doubts else FOUND

    @property
    def doubts(self) -> tuple[str, ...]:
        """What speaks against the crystal, each with what to try, a tuple of sentences."""
        return tuple(said for doubted, said in self._reasons() if doubted)

    def _reasons(self):
        yield (
            not self.excess <= MISSED,  # nor NaN
            f"{self._residuals()}; look where in the frames, and at mask, background, flux and angles",
        )
        yield (
            # another crystal misses its brightest frames most, which are not to be masked for that
            self.frame_excess > ONE_FRAME * max(self.excess, 1) and not misses(self, self.noise),
            f"frame {self.frame} is missed by {self.frame_excess:.1f} times photon noise, the others by less: mask it",
        )
        yield (
            self.twin is not None and self.twin < ALIKE,
            f"the conjugate twin fits as well (misfit {self.twin or 0:.2f} of the crystal's): more light or a thicker "
            "crystal would tell",
        )
        yield (
            self.turns > TURNS,
            f"the phase turns by more than pi/2 between {self.turns:.1%} of the neighbouring voxels: try other seeds, "
            "narrower voxels or more starts",
        )
        yield bool(self.cut), f"the crystal touches the box along {', '.join(self.cut)}: give a larger box"

    def _residuals(self):
        return f"residuals are {self.excess:.1f} times photon noise (mean square): the model misses something"

    def __str__(self):
        told = [f"misfit {self.misfit:.2e}, photon noise {self.noise:.2e}, voxels {self.grid:.2e}"]
        if self.excess <= ALL_PHOTONS:
            told[0] += ": photon noise explains the misfit"
        elif self.excess <= MISSED:  # else it is a doubt
            told[0] += f": {self._residuals()}"
        if self.verdict == NOT_FOUND:
            told.append(
                "another crystal than that of the frames: check energy, arm and hkl, mask and background; try other "
                "seeds, more starts, or a start of another program"
            )
        return f"{self.verdict}: " + "; ".join([*told, *self.doubts])


def misses(found, noise):
    """Whether a `Result`, or its `Trust`, is of another crystal than that of its frames.

    noise : misfit of photon noise.
    """
    return not found.misfit <= NOISES * noise + BESIDE  # nor NaN


def turns_of(S, inside):
    """Part of the neighbouring voxels, both ``inside``, between which arg S turns by more than pi/2.

    S : complex (nz, ny, nx).  inside : bool (nz, ny, nx)
    """
    pairs = turned = 0
    for axis in range(3):
        s, within = np.moveaxis(S, axis, 0), np.moveaxis(inside, axis, 0)
        both = within[1:] & within[:-1]
        pairs += np.count_nonzero(both)
        turned += np.count_nonzero((s[1:] * s[:-1].conj()).real[both] < 0)
    return float(turned / max(pairs, 1))


def cut_axes(inside):
    """Axes, of "zyx", at whose ends ``inside``, bool (nz, ny, nx), is True somewhere."""
    return "".join(name for axis, name in enumerate("zyx") if np.take(inside, [0, -1], axis).any())


def excess_of(expected, data, mask=None):
    """(excess, frame, its excess): sums of square residuals over those of photon noise, of all frames, of the worst.

    Of the pixels that expect some light.

    Parameters
    ----------
    expected : counts, float64 (n_frames, rows, cols)
    data : counts, (n_frames, rows, cols)
    mask : bool, as in `Model.fit`, or None
    """
    lit = expected > LIT
    if mask is not None:
        lit &= mask
    if not lit.any():
        return 1.0, 0, 1.0
    # bad pixels may hold anything, -1 for example
    square = np.square(np.sqrt(np.where(lit, expected, 0)) - np.sqrt(np.where(lit, data, 0))).sum((1, 2))
    noise = np.where(lit, counting_noise(expected), 0).sum((1, 2))
    several = lit.sum((1, 2)) >= SEVERAL
    frames = np.divide(square, noise, out=np.zeros(len(noise)), where=several)
    worst = int(np.argmax(frames))
    return float(square.sum() / noise.sum()), worst, float(frames[worst])
