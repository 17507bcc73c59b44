"""The simulated crystals of Wu et al., arXiv 2506.15939: a gold cube, and a strontium iridate block welded at a corner.

Sizes: "full" is 256 x 256 pixels in 257 frames, "half" and "small" are the same crystal, field of view and range of
angles with a half and a quarter of the pixels and frames along each axis, so with voxels twice and four times as wide.

What the paper does not print is chosen here: detector distance (by the field of view), the shapes of the displacement
fields, the block's turn about h, its range of angles. The printed susceptibilities contain the polarisation factor C
of a pi wave: the models get them with ``polarization={"sigma": 1.0}``, which keeps C from being applied twice. The two
misprinted exponents of Im chi_0 are repaired (tables: 8.5e-6, not e-5, and 9.7e-7, not e-5).
"""

import math
from dataclasses import dataclass

import numpy as np
import pendel
from pendel import phantom
from pendel.app import simulate
from pendel.experiment import rotation
from pendel.recipes.thick_crystals import extinction_length

PIXELS = {"full": 256, "half": 128, "small": 64}
PIXEL_SIZE = 55e-6  # m, detector
GOLD = pendel.Crystal(-9.407e-5 + 8.4962e-6j, 5.2548e-5 - 5.9889e-6j, name="Au", hkl=(0, 0, 2))
IRIDATE = pendel.Crystal(-2.4947e-5 + 9.6953e-7j, 1.3373e-5 - 8.4241e-7j, name="Sr2IrO4", hkl=(1, 1, 6))
LATTICE = (5.49, 5.49, 25.80)  # angstrom, Sr2IrO4
BLOCK = (1.5e-6, 1.5e-6, 1.2e-6)  # m, along a, b, c
GOLD_RANGE, BLOCK_RANGE = 0.2, 0.15  # deg, to either side
GOLD_PHASE = 2.0  # rad, highest bump of -h.u
WELD_PHASE, WELD_RADIUS = 3.0, 0.15e-6  # rad at the corner; m over which it halves


@dataclass
class Case:
    """A model, the crystal in it, and what is asked about it. Lengths in m, vectors (x, y, z) in the model frame."""

    name: str
    model: pendel.Model
    S: np.ndarray  # complex64 (nz, ny, nx), the truth
    body: np.ndarray  # float64, volume fractions
    h: np.ndarray  # rad/m
    point: np.ndarray  # where slices are laid
    corner: np.ndarray | None = None  # of the weld

    @property
    def extinction_length(self):
        """Lambda = lambda sqrt(gamma_0 gamma_h)/|C chi_h|, the period of the intensities in a plate normal to k_h."""
        return extinction_length(self.model)

    @property
    def measured_band(self):
        """bool (nz, ny, nx), centred: which Fourier components of the box the scan's frames and pixels have seen."""
        experiment, shape = self.model.experiment, self.model.shape
        z, y, x = (
            2 * np.pi * np.fft.fftshift(np.fft.fftfreq(n, d)) for n, d in zip(shape, self.model.voxel, strict=True)
        )
        Q = np.stack(np.broadcast_arrays(x, y[:, None], z[:, None, None]))
        place = np.tensordot(np.linalg.inv(experiment.basis()), Q, 1)  # frames, rows, columns from the centre
        counts = (experiment.n_frames, *experiment.detector_shape)
        return np.all([np.abs(p) < n / 2 for p, n in zip(place, counts, strict=True)], axis=0)

    def seen(self, S):
        """S within the measured band; the differences that make a strain would mostly show what lies beyond."""
        return np.fft.ifftn(np.fft.fftn(S) * np.fft.ifftshift(self.measured_band))


def gold_cube(size="half", edge=1e-6, strained=True, threads=None):
    """Au cube, (002) parallel to two faces, 8 keV, 2theta = 44.76 deg, rocking +-0.2 deg for an edge of 1 um.

    ``edge``: field of view and range of angles go with it, so that every cube has the same number of voxels.
    """
    n, wavelength = PIXELS[size], 1.5498e-10
    experiment = pendel.Experiment(
        wavelength=wavelength,
        distance=2.05 * edge * PIXEL_SIZE / wavelength,
        pixel_size=PIXEL_SIZE,
        detector_shape=(n, n),
        arm=[("y+", np.deg2rad(44.76))],
        rocking_axis="y+",  # positive angles: the larger glancing angle
        rocking_angles=np.deg2rad(np.linspace(-GOLD_RANGE, GOLD_RANGE, n + 1)) * (1e-6 / edge),
    )
    h = experiment.frame @ experiment.h
    turn = phantom.orientation((0, 0, 1), h)
    model = _model(experiment, GOLD, turn, (edge,) * 3, threads)
    grid = model.shape, model.voxel
    body = phantom.cube(*grid, edge, turn)
    centres, widths, heights = map(np.array, simulate.BUMPS)
    phase = phantom.bumps(*grid, centres * edge, widths * edge, GOLD_PHASE * strained * heights)
    S = phantom.crystal_function(body, phase)
    return Case(f"Au (002), 8 keV, cube of {edge * 1e6:.3g} um", model, S, body, h, np.zeros(3))


def welded_block(size="half", threads=None):
    """Sr2IrO4 block of 1.5 x 1.5 x 1.2 um (a, b, c), (116), 10 keV, pressed at the corner where it is welded.

    Two detector arms (roll of the pixels against the scattering plane), rocking about the vertical, +-0.15 deg. Under
    a point load the displacement falls like one over the distance (Boussinesq), rounded off within the weld.
    """
    n, wavelength, gamma = PIXELS[size], 1.2398e-10, np.deg2rad(12.0)
    two_theta = np.deg2rad(24.85)
    field = 3.3e-6
    experiment = pendel.Experiment(
        wavelength=wavelength,
        distance=field * PIXEL_SIZE / wavelength,
        pixel_size=PIXEL_SIZE,
        detector_shape=(n, n),
        arm=[("y+", math.acos(math.cos(two_theta) / math.cos(gamma))), ("x-", gamma)],
        rocking_axis="y+",
        rocking_angles=np.deg2rad(np.linspace(-BLOCK_RANGE, BLOCK_RANGE, n + 1)),
    )
    h = experiment.frame @ experiment.h
    normal = np.array(IRIDATE.hkl) / LATTICE  # of the lattice planes, in the axes of the block
    turn = phantom.orientation(normal, h, azimuth=0.6)
    model = _model(experiment, IRIDATE, turn, BLOCK, threads)
    grid = model.shape, model.voxel
    body = phantom.cube(*grid, BLOCK, turn)
    corner = turn @ (np.array(BLOCK) / 2)
    S = phantom.crystal_function(body, phantom.contact(*grid, corner, WELD_RADIUS, WELD_PHASE))
    return Case("Sr2IrO4 (116), 10 keV, welded block", model, S, body, h, 0.7 * corner, corner)


def _model(experiment, crystal, turn, edges, threads):
    voxel = experiment.suggest_voxel()
    extent = (np.abs(turn) @ np.array(edges))[::-1]
    shape = [2 * math.ceil(max(1.2 * e / v, e / v + 8) / 2) for e, v in zip(extent, voxel, strict=True)]
    most = [int(experiment.field_of_view / v * (1 + 1e-9)) // 2 * 2 for v in voxel[1:]]
    shape = (shape[0], *(min(n, m) for n, m in zip(shape[1:], most, strict=True)))
    return pendel.Model(experiment, crystal, shape, voxel, polarization={"sigma": 1.0}, threads=threads)


def rocking_shift(edge=1e-6, size="small", threads=None):
    """Shift of the rocking curve of an unstrained gold cube, deg: closed form and measured.

    Without extinction and absorption the curve's centroid is at D = dq_z = -<d phi/dz>, phi the phase of equation (2)
    of `pendel.refraction`. A mean of a derivative is a surface integral: with the chords of a square whose faces are
    parallel and normal to h, and tan theta < 1, <dL_h/dz> = -1 and <dL_0/dz> = 1 - tan theta, so D = k Re chi_0
    tan(theta)/2 and

        shift = -Re chi_0/(4 cos^2 theta)     towards the larger glancing angle.

    Absorption weighs the crystal's front, extinction changes the field: the last two rows are not in the closed form.
    """
    case = gold_cube(size, edge, strained=False, threads=threads)
    experiment, crystal = case.model.experiment, case.model.crystal
    (_, op), *_ = case.model.operators
    k, theta = experiment.k, experiment.two_theta / 2
    half = abs(experiment.rocking_angles[0])
    angles = np.linspace(-half, half, 801)
    dq = np.stack([experiment.frame @ ((rotation("y+", a) - np.eye(3)) @ experiment.h) for a in angles])
    weak = 1e-3
    rows = {
        "kinematic": (0, weak * crystal.chi_h, 0),
        "refraction": (crystal.chi_0.real, weak * crystal.chi_h, 0),
        "refraction, absorption": (crystal.chi_0, weak * crystal.chi_h, 0),
        "dynamical": (crystal.chi_0, crystal.chi_h, crystal.chi_hbar),
    }
    shifts = {"closed form": float(np.rad2deg(-crystal.chi_0.real / (4 * math.cos(theta) ** 2)))}
    curves = {}
    for name, (chi_0, chi_h, chi_hbar) in rows.items():
        operator = pendel.TakagiTaupin(
            op.shape, op.voxel, experiment.wavelength, experiment.two_theta, chi_0, chi_h, chi_hbar, threads=threads
        )
        curve = np.concatenate(
            [
                (np.abs(operator.forward(case.S, part)) ** 2).sum(axis=(1, 2), dtype=np.float64)
                for part in np.array_split(dq, 16)
            ]
        )
        curves[name] = curve / (abs(chi_h) * k) ** 2
        # dq_z = -k sin 2theta times the angle to first order; the centroid is taken in dq_z, as it was derived
        shifts[name] = float(np.rad2deg(-_centroid(dq[:, 2], curve) / (k * math.sin(2 * theta))))
    for name in ("refraction", "refraction, absorption", "dynamical"):
        shifts[name] -= shifts["kinematic"]
    return shifts, angles, curves


def _centroid(x, weight):
    """Centroid within a window symmetric about itself: the tails fall like 1/x^2 and would else weigh on one side."""
    order = np.argsort(x)
    x, weight = x[order], weight[order]
    fine = np.linspace(x[0], x[-1], 20 * len(x))
    weight = np.interp(fine, x, weight)
    centre = 0.0
    for _ in range(50):
        half = min(centre - fine[0], fine[-1] - centre)
        kept = np.abs(fine - centre) <= half
        centre = float(fine[kept] @ weight[kept] / weight[kept].sum())
    return centre
