"""Keys of a configuration file: for every section and key its check, its default and what it means."""

import math


def _fail(expected, value):
    text = repr(value)
    raise ValueError(f"expected {expected}, got {text if len(text) <= 60 else text[:57] + '...'}")


def _number(above=None, least=None, most=None):
    bounds = [f"{sign} {bound:g}" for sign, bound in ((">", above), (">=", least), ("<=", most)) if bound is not None]
    expected = " ".join(["a number", " and ".join(bounds)]).strip()

    def check(value):
        good = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        if (
            not good
            or not ((above is None or value > above) and (least is None or value >= least))
            or most is not None
            and value > most
        ):
            _fail(expected, value)
        return float(value)

    return check


def _integer(least):
    def check(value):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            _fail(f"an integer >= {least}", value)
        return value

    return check


def _boolean(value):
    return value if isinstance(value, bool) else _fail("true or false", value)


def _text(value):
    return value if isinstance(value, str) and value else _fail("text", value)


def _choice(*allowed):
    return lambda value: (
        value
        if value in allowed and isinstance(value, str)
        else _fail("one of " + ", ".join(map(repr, allowed)), value)
    )


def _list(item, *counts):
    """A list of ``counts`` items (any of these lengths; none given: one or more)."""
    expected = "a list of " + (" or ".join(map(str, counts)) if counts else "one or more") + " items"

    def check(value):
        if not isinstance(value, list) or (len(value) not in counts if counts else not value):
            _fail(expected, value)
        checked = []
        for i, entry in enumerate(value):
            try:
                checked.append(item(entry))
            except ValueError as error:
                raise ValueError(f"item {i}: {error}") from None
        return checked

    return check


def _either(expected, *checks):
    def check(value):
        for one in checks:
            try:
                return one(value)
            except ValueError:
                continue
        return _fail(expected, value)

    return check


def _complex(value):
    try:
        re, im = _list(_number(), 2)(value)
    except ValueError:
        _fail("[real, imaginary]", value)
    return complex(re, im)


def _turns(value):
    pair = _list(lambda item: item, 2)
    return tuple((_axis(pair(item)[0]), _number()(item[1])) for item in _list(pair)(value))


def _axis(value):
    if isinstance(value, str) and len(value) == 2 and value[0] in "xyz" and value[1] in "+-":
        return value
    if isinstance(value, list) and len(value) == 3:
        return tuple(_list(_number(), 3)(value))
    return _fail("an axis such as 'y+' or three numbers", value)


def _fractions(value):
    if not isinstance(value, dict) or set(value) - {"sigma", "pi"}:
        _fail("{sigma = .., pi = ..}", value)
    value = {k: _number(least=0, most=1)(value.get(k, 0.0)) for k in ("sigma", "pi")}
    if abs(sum(value.values()) - 1) > 1e-6:  # typed decimals such as 0.1505 + 0.8495, not rounding noise
        _fail("fractions that add up to 1", value)
    return value


def _schedule(value):
    if value in ("cosine", "plateau", "constant"):
        return value
    expected = "'cosine', 'plateau', 'constant' or a list of [epoch >= 0, rate > 0]"
    pairs = _either(expected, _list(_pair))(value)
    if [epoch for epoch, _ in pairs] != sorted({epoch for epoch, _ in pairs}):
        _fail("growing epochs in [epoch, rate]", value)
    return pairs


def _pair(value):
    epoch, rate = _list(lambda item: item, 2)(value)
    return _integer(0)(epoch), _number(above=0)(rate)


def _fraction(value):
    try:
        checked = _number(least=0)(value)
    except ValueError:
        checked = 1.0
    return checked if checked < 1 else _fail("a number >= 0 and < 1", value)


def _bound(value):
    return None if value is False else _either("a number > 0, or false for none", _number(above=0))(value)


_positive = _number(above=0)
_voxel = _either("'auto', a number or [dz, dy, dx]", _choice("auto"), _positive, _list(_positive, 3))
_beam = _either(
    "'horizontal', 'vertical', 'unpolarized' or [x, y]",
    _choice("horizontal", "vertical", "unpolarized"),
    _list(_number(), 2),
)
_vector = _list(_number(), 3)
_size = _list(_integer(1), 3)
# section: key: (check, default). None: not set, taken from the data file or left to the program.
SCHEMA = {
    "data": {
        "path": (_text, None),  # file or folder, relative to the config file
        "format": (_choice("auto", "cxi", "34idc"), "auto"),  # auto: a folder is 34idc, a file is cxi
        "scan": (_integer(0), None),  # number in the SPEC file
        "frames": (_list(_integer(0), 2), None),  # [first, last], both kept
        "crop": (_list(_integer(1), 2), None),  # [rows, cols] about the centre
        "centre": (_vector, None),  # [frame, row, col] in the data as stored; default: from the file or found
        "dark": (_boolean, True),
        "whitefield": (_boolean, True),
        "hot_pixels": (_boolean, False),  # mask isolated hot pixels found in the frames
        "mask": (_text, None),  # .npy or .npz (array "mask"), True = good, shape of the stored data or of one frame
    },
    "experiment": {
        "energy_keV": (_positive, None),
        "distance_mm": (_positive, None),
        "pixel_um": (_positive, None),
        "two_theta_deg": (_number(above=0), None),  # one turn of the detector arm about lab y+
        "arm": (_turns, None),  # [["y+", deg], ["x-", deg]], outermost first
        "rocking_axis": (_axis, None),
        "rocking_step_deg": (_number(), None),  # angles = step * (frame - frames // 2)
        "rocking_frames": (_integer(1), None),  # with rocking_step_deg where there are no data to count
        "rocking_angles_deg": (_list(_number()), None),
        "detector_shape": (_list(_integer(1), 2), None),
        "centre": (_vector, None),  # [frame, row, col] that k_h hits, in the cropped data
        "beam_polarization": (_beam, "horizontal"),
        "orientation": (_choice("k_h", "symmetric"), "k_h"),  # model z along k_h, or k_0 + k_h (2 theta up to 178 deg)
    },
    "crystal": {
        "name": (_text, ""),
        "hkl": (_list(_integer(-99), 3), None),
        # a name or a CIF file, as in pendel.susceptibility; instead of chi_0, chi_h, chi_hbar
        "material": (_text, None),
        "lattice_nm": (_either("a number or [a, b, c]", _positive, _list(_positive, 3)), None),  # instead of its own
        "debye_waller_nm2": (_number(least=0), None),  # B of all atoms, instead of their own
        "chi_0": (_complex, None),
        "chi_h": (_complex, None),  # sigma: without the polarisation factor
        "chi_hbar": (_complex, None),  # default: chi_h
        "polarization": (_fractions, None),  # default: from beam_polarization
    },
    "model": {
        "shape": (_size, None),  # [nz, ny, nx]
        "voxel_nm": (_voxel, "auto"),
        "resolution_nm": (_positive, None),  # with voxel_nm = "auto": upper bound of dx and dy
        "transport": (_choice("auto", "shift", "fourier"), "auto"),
        "scheme": (_choice("strang", "etd2rk"), "strang"),
        "dtype": (_choice("complex64", "complex128"), "complex64"),
        "coupling": (_choice("dynamical", "kinematic"), "dynamical"),
        "device": (_text, "cpu"),  # "cpu", "cuda" or "cuda:N"
        "threads": (_integer(1), None),
        "resync": (_integer(1), None),  # layers reversed at most: for crystals that absorb too much, 16 to begin with
    },
    "start": {
        # solid: with recipe.method = "multiscale", for crystals of an extinction length and more
        "kind": (_choice("kinematic", "flat", "solid", "file"), "kinematic"),
        "path": (_text, None),  # result file to start from, with kind = "file"
        "iterations": (_integer(1), 500),
        "trial_epochs": (_integer(0), 20),  # epochs given to each twin before the better one is kept
        "seed": (_integer(0), 0),
        "size_nm": (_either("a number or [z, y, x]", _positive, _list(_positive, 3)), None),  # box, if not kinematic
    },
    "recipe": {
        "epochs": (_integer(1), 300),  # iterations of lbfgs
        "batches": (_integer(1), 5),
        # multiscale: from nothing, coarse to fine, with the keys of [multiscale]
        "method": (_choice("adam", "lbfgs", "multiscale"), "adam"),
        "polish_rounds": (_integer(0), 0),  # rounds of pendel.polish at the end, all pixels in
        "learning_rate": (_positive, 0.15),
        "schedule": (_schedule, "cosine"),  # "cosine", "plateau", "constant" or [[epoch, rate], ...]
        "patience": (_integer(1), 15),  # epochs, of "plateau"
        "likelihood": (_choice("amplitude", "poisson"), "amplitude"),
        "background": (_number(least=0), 0.0),  # counts per pixel, with "poisson"
        "s_0": (_choice("tied", "support", "free"), "tied"),
        "amplitude_bound": (_bound, 1.0),  # false: none
        "optimise": (_choice("S", "phase"), "S"),
        "phase_only_epochs": (_integer(0), 0),
        "atv_weight": (_number(least=0), 0.0),  # of the mean measured intensity
        "atv_p": (_number(least=1), 2.0),
        "atv_q": (_positive, 1.0),
        "shrink_wrap_every": (_integer(0), 10),  # epochs; 0: never
        "shrink_wrap_threshold": (_number(above=0, most=1), 0.15),
        "shrink_wrap_sigma": (_number(least=0), 1.0),  # voxels
        "recentre_every": (_integer(0), None),  # epochs; 0: never; default: as shrink_wrap_every
        "refine_angles": (_boolean, False),
        "angle_spread": (_positive, 0.3),  # expected rms, steps of the scan
        "refine_intensities": (_boolean, False),
        "intensity_spread": (_positive, 0.1),  # expected relative rms
        "refine_after": (_integer(0), None),  # epochs; default: a quarter of them
        "free_fraction": (_fraction, 0.0),  # of the good pixels, held out of the fit
        "seed": (_integer(0), 0),
        "checkpoint": (_text, None),  # HDF5 file for --resume
        "checkpoint_every": (_integer(1), 50),  # epochs
    },
    "multiscale": {  # of pendel.multiscale; likelihood "poisson" of [recipe] is its counts
        "levels": (_integer(0), None),
        "starts": (_integer(1), 5),
        "steps": (_integer(1), 3200),  # of minibatch Adam
        "rounds": (_integer(1), 4),  # of polish on every level
        "places": (_boolean, None),  # default: without counts
    },
    "simulate": {
        "shape": (_choice("cube", "sphere", "truncated_octahedron"), "cube"),
        # edge (or three) of a cube, diameter of a sphere, distance between {111} facets of a truncated octahedron
        "size_nm": (_either("a number or [x, y, z]", _positive, _list(_positive, 3)), None),
        # about model y, or about x, then y, then z
        "rotation_deg": (_either("a number or three numbers (about x, y, z)", _number(), _vector), 0.0),
        "strain": (_choice("none", "bumps", "contact", "bend"), "none"),
        "strength": (_number(), 1.0),  # largest phase, rad
        "photons": (_positive, None),  # in the brightest pixel; default: no noise
        "seed": (_integer(0), 0),
    },
    "output": {
        "path": (_text, None),
        "pictures": (_boolean, True),
    },
}  # fmt: skip
