"""The simulated crystals of Wu et al., arXiv 2506.15939: a gold cube, and a strontium iridate block welded at a corner.

Each of them twice: as a function of position, which `foreign_frames` are made of, and on the grid of a model.

Sizes: "full" is 256 x 256 pixels in 257 frames, "half" and "small" are the same crystal, field of view and range of
angles with a half and a quarter of the pixels and frames along each axis, so with voxels twice and four times as wide.

What the paper does not print is chosen here: detector distance (by the field of view), the shapes of the displacement
fields, the block's turn about h, its range of angles. The printed susceptibilities contain the polarisation factor C
of a pi wave: the models get them with ``polarization={"sigma": 1.0}``, which keeps C from being applied twice. The two
misprinted exponents of Im chi_0 are repaired (tables: 8.5e-6, not e-5, and 9.7e-7, not e-5).
"""

import hashlib
import math
import pathlib
from dataclasses import dataclass

import numpy as np
import pendel
from pendel import phantom
from pendel.analysis import bodies, crystals, rocking_scans, strain_fields
from pendel.app import samples
from pendel.experiment import rotation
from pendel.recipes.thick_crystals import extinction_length
from pendel.reference import wide_angle

PIXELS = {"full": 256, "half": 128, "small": 64}
PIXEL_SIZE = 55e-6  # m, detector
GOLD = pendel.Crystal(-9.407e-5 + 8.4962e-6j, 5.2548e-5 - 5.9889e-6j, name="Au", hkl=(0, 0, 2))
IRIDATE = pendel.Crystal(-2.4947e-5 + 9.6953e-7j, 1.3373e-5 - 8.4241e-7j, name="Sr2IrO4", hkl=(1, 1, 6))
LATTICE = (5.49, 5.49, 25.80)  # angstrom, Sr2IrO4
BLOCK = (1.5e-6, 1.5e-6, 1.2e-6)  # m, along a, b, c
GOLD_RANGE, BLOCK_RANGE = 0.2, 0.15  # deg, to either side
GOLD_PHASE = 2.0  # rad, highest bump of -h.u
WELD_PHASE, WELD_RADIUS = 3.0, 0.15e-6  # rad at the corner; m over which it halves
FINER = 4  # voxels of `foreign_frames` per voxel that the data resolve, along each axis


@dataclass
class Case:
    """A crystal, the scan of it, and what is asked about it. Lengths in m, vectors (x, y, z) in the model frame.

    Attributes
    ----------
    name : of pictures
    model : `pendel.Model` on voxels of the data's resolution, in a box around the crystal
    sample : the crystal as a function of position
    S : complex64 (nz, ny, nx), the crystal on the grid of ``model``: volume fractions, phases of the voxels' middles
    body : float64 (nz, ny, nx), volume fractions
    h : (3,) rad/m
    point : (3,), where slices are laid
    corner : (3,) of the weld, or None
    """

    name: str
    model: pendel.Model
    sample: crystals.SampleCrystal
    S: np.ndarray
    body: np.ndarray
    h: np.ndarray
    point: np.ndarray
    corner: np.ndarray | None = None

    @property
    def experiment(self):
        return self.model.experiment

    @property
    def extinction_length(self):
        """Lambda = lambda sqrt(gamma_0 gamma_h)/|C chi_h|, the period of the intensities in a plate normal to k_h."""
        return extinction_length(self.model)

    def seen(self, S, voxel):
        """S within the measured band; the differences that make a strain would mostly show what lies beyond."""
        band = measured_band(self.experiment, S.shape, voxel)
        return np.fft.ifftn(np.fft.fftn(S) * np.fft.ifftshift(band))


def measured_band(experiment, shape, voxel):
    """Which Fourier components of a grid the scan's frames and pixels have seen: bool (nz, ny, nx), centred."""
    z, y, x = (2 * np.pi * np.fft.fftshift(np.fft.fftfreq(n, d)) for n, d in zip(shape, voxel, strict=True))
    Q = np.stack(np.broadcast_arrays(x, y[:, None], z[:, None, None]))
    place = np.tensordot(np.linalg.inv(experiment.basis()), Q, 1)  # frames, rows, columns from the centre
    counts = (experiment.n_frames, *experiment.detector_shape)
    return np.all([np.abs(p) < n / 2 for p, n in zip(place, counts, strict=True)], axis=0)


def foreign_frames(case, cache=None, workers=1):
    """Frames of the crystal that pendel's model did not make, by `pendel.reference.wide_angle`.

    Parameters
    ----------
    case : Case
    cache : folder that keeps them, or None
    workers : threads

    Returns
    -------
    float64 (frames, rows, cols), in units of `Model.intensities` of voxels ``suggest_voxel()``
    """
    path = None if cache is None else pathlib.Path(cache) / f"{_key(case)}.npz"
    if path is not None and path.exists():
        with np.load(path) as file:
            return file["frames"]
    experiment, model = case.experiment, case.model
    voxel = experiment.field_of_view / max(experiment.detector_shape) / FINER
    options = {"voxel": voxel, "polarization": model.polarization, "workers": workers}
    frames = rocking_scans.foreign_frames(experiment, model.crystal, case.sample, **options)
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, frames=frames)
    return frames


def _key(case):
    """Name of the frames: all that they depend on, the text of what makes them too."""
    made_by = (wide_angle, rocking_scans, crystals, bodies, strain_fields, samples)
    text = [pathlib.Path(module.__file__).read_bytes() for module in made_by]
    said = (rocking_scans.wide_angle_scan(case.experiment), case.model.crystal, case.model.polarization, case.sample)
    return hashlib.sha256(b"".join([repr((*said, FINER)).encode(), *text])).hexdigest()[:32]


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
    centres, widths, heights = map(np.array, samples.BUMPS)
    centres, widths, heights = centres * edge, widths * edge, GOLD_PHASE * strained * heights
    S = phantom.crystal_function(body, phantom.bumps(*grid, centres, widths, heights))
    strain = strain_fields.Bumps(centres @ experiment.frame, widths, heights)
    sample = _sample("gold cube", (edge,) * 3, experiment.frame.T @ turn, strain)
    return Case(f"Au (002), 8 keV, cube of {edge * 1e6:.3g} um", model, sample, S, body, h, np.zeros(3))


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
    strain = samples.Times(samples.Contact(experiment.frame.T @ corner, WELD_RADIUS), WELD_PHASE)
    sample = _sample("welded block", BLOCK, experiment.frame.T @ turn, strain)
    return Case("Sr2IrO4 (116), 10 keV, welded block", model, sample, S, body, h, 0.7 * corner, corner)


def _sample(name, edges, axes, strain):
    """Block of ``edges`` (m) along the columns of ``axes`` (lab), about the origin, with a strain in it."""
    body = bodies.Polyhedron(np.concatenate([axes.T, -axes.T]), np.tile(edges, 2) / 2)
    extent = float((np.abs(axes) @ np.array(edges)).max())
    return crystals.SampleCrystal(name, extent, (crystals.Grain((body,), strain=strain),))


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
