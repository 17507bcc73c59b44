"""Keys of a configuration file: for every section and key its check, its default and what it means.

Where a key is an argument of a function or a field of a recipe, default and bounds are read from there.
"""

import dataclasses
import inspect
import math
import textwrap
from collections.abc import Callable, Iterable
from typing import Any

from ..analysis import crystals
from ..analysis.disturbances import Disturbances
from ..base import checks, plausible
from ..base.axes import axis_as_given
from ..base.recipe import Recipe, choice, flag, integer, number
from ..experiment.crystal import polarization_fractions
from ..experiment.geometry import Experiment
from ..io import beamlines
from ..io.hdf5_links import ANYWHERE, FOLDER
from ..model.model import Model
from ..operator.physics import ORIENTATIONS, SCHEMES, TRANSPORTS
from ..recipes.kinematic_starts import kinematic_start
from ..recipes.multiscale_recipe import MultiscaleRecipe
from ..recipes.solve import SolveRecipe
from .methods import METHODS, recipe_fields
from .samples import SHAPES, STRAINS
from .simulate import MAKERS
from .starts import STARTS

LINE = 100  # columns of `listing`
Check = Callable[[str, Any], Any]  # (dotted key, value of TOML) -> value; raises TypeError or ValueError


@dataclasses.dataclass(frozen=True)
class Key:
    """One key. default None: not set, taken from the data file or left to the program."""

    check: Check
    default: Any = None
    about: str = ""


def _text(name, value):
    if not isinstance(value, str) or not value:
        raise TypeError(f"{name}: expected text, got {checks.describe(value)}")
    return value


def _name(name, value):
    return value if value == "" else _text(name, value)


def _list(check: Check, count: int | None = None) -> Check:
    """A list of ``count`` items, None: of one or more; they become a tuple."""
    expected = "a list of one or more items" if count is None else f"a list of {count} items"

    def check_list(name, value):
        if not isinstance(value, list) or not value or len(value) != (count or len(value)):
            raise TypeError(f"{name}: expected {expected}, got {checks.describe(value)}")
        return tuple(check(f"{name}[{i}]", item) for i, item in enumerate(value))

    return check_list


def _either(expected: str, *several: Check) -> Check:
    """What one of several checks lets pass."""

    def check_either(name, value):
        for check in several:
            try:
                return check(name, value)
            except TypeError:
                continue
            except ValueError as error:
                if "looks like" in str(error):
                    raise
        raise ValueError(f"{name}: expected {expected}, got {checks.describe(value)}")

    return check_either


def _false_for_none(check: Check) -> Check:
    """A check that gives None for false: TOML has no None."""

    def check_or_false(name, value):
        if value is False:
            return None
        try:
            return check(name, value)
        except (TypeError, ValueError) as error:
            raise type(error)(f"{error}; false for none") from None

    return check_or_false


def _of(quantity: plausible.Quantity, unit: str) -> Check:
    """A number of a physical quantity in the unit that the key names, and in its range."""

    def check_quantity(name, value):
        return plausible.number(quantity, name, value, unit)

    return check_quantity


def _length_or_inf(name, value):
    return value if value == math.inf else plausible.number(plausible.COHERENCE_LENGTH, name, value, "um")


def _passes(check: Check, value: Any) -> bool:
    try:
        check("", value)
    except (TypeError, ValueError):
        return False
    return True


def _complex(name, value):
    try:
        re, im = _list(number(), 2)(name, value)
    except (TypeError, ValueError):
        raise ValueError(f"{name}: expected [real, imaginary], got {checks.describe(value)}") from None
    return complex(re, im)


def _turn(name, value):
    if not isinstance(value, list) or len(value) != 2:
        raise TypeError(f"{name}: expected [axis, angle], got {checks.describe(value)}")
    axis, angle = axis_as_given(name, value[0]), checks.number(name, value[1], at_least=-360, at_most=360)
    return axis, math.remainder(angle, 360)


def _fractions(name, value):
    try:
        return polarization_fractions(value)
    except (TypeError, ValueError) as error:
        raise type(error)(name + str(error).removeprefix("polarization")) from None


def _beamline(name, value):
    return checks.choice(name, value, ("auto", *beamlines.names()))


def _keys_of(fields: Iterable[dataclasses.Field], *left_out: str) -> dict[str, Key]:
    """A key for every field of a recipe but those ``left_out`` and recipes in it."""
    keys = {}
    for item in fields:
        if item.name not in left_out and not isinstance(item.default, Recipe):
            check, about = item.metadata["check"], item.metadata["about"]
            # a default of None is had by leaving the key out; false would be read as "never"
            if hasattr(check, "of") and item.default is not None and not _passes(check, False):
                check, about = _false_for_none(check.of), f"{about} false: None."
            keys[item.name] = Key(check, item.default, about)
    return keys


def _disturbance(name: str, check: Check, about: str) -> Key:
    """A key that is an attribute of `Disturbances`, with its default."""
    return Key(check, getattr(Disturbances, name), about)


def _argument(function: Callable, name: str, check: Check, about: str = "") -> Key:
    """A key that is a parameter of a function, with its default."""
    return Key(check, inspect.signature(function).parameters[name].default, about)


_at_least_0, _at_least_1, _positive = integer(at_least=0), integer(at_least=1), number(above=0)
_not_below_0 = number(at_least=0)
_point = _list(number(), 3)
_voxel, _size = _of(plausible.VOXEL, "nm"), _of(plausible.CRYSTAL_SIZE, "nm")
_spacing = _of(plausible.SPACING, "nm")
_external = Key(
    choice(FOLDER, ANYWHERE), FOLDER, "where links of HDF5 files may lead: to their folder and below, or anywhere."
)

# [section]: keys
SCHEMA = {
    "data": {
        "path": Key(
            _either("text or a list of texts", _text, _list(_text)),
            about="file or folder, relative to the config file; several, of one peak, are aligned and summed.",
        ),
        "format": Key(
            _beamline,
            "auto",
            "see `pendel.io.beamlines`; auto: that of another package which knows the path, else a folder is 34idc, a"
            " .npz, .npy or .tif file is array, a master file of Eiger is eiger, one of BLISS id01, any other cxi.",
        ),
        "scan": Key(_at_least_0, about="number in the SPEC file."),
        "frames": Key(_list(_at_least_0, 2), about="[first, last], both kept."),
        "crop": Key(_list(_at_least_1, 2), about="[rows, cols] about the centre."),
        "centre": Key(_point, about="[frame, row, col] in the data as stored; default: from the file or found."),
        "dark": Key(flag, True, "mask the pixels that the dark field shows."),
        "whitefield": Key(flag, True, "divide by the white field, and mask where it is weak."),
        "hot_pixels": Key(flag, False, "mask isolated hot pixels found in the frames."),
        "saturation": Key(
            _positive, about="counts, as read out, at and above which a pixel is saturated and masked; default: none."
        ),
        "external": _external,
        "monitor": Key(flag, False, "multiply each frame by the incident intensity that the data know."),
        "background": Key(
            _text,
            about=".npy, counts per pixel beside the crystal's, of the stored data or of one frame: a measured dark, or"
            " a streak; recipe.background is added to it.",
        ),
        "mask": Key(
            _text,
            about='.npy or .npz (array "mask"), of the stored data or of one frame: bool, True = good, or integers,'
            " 0 = good.",
        ),
    },
    "experiment": {
        "energy_keV": Key(_of(plausible.ENERGY, "keV")),
        "distance_mm": Key(_of(plausible.DISTANCE, "mm")),
        "pixel_um": Key(_of(plausible.PIXEL, "um")),
        "two_theta_deg": Key(_of(plausible.TURN, "deg"), about="one turn of the detector arm about lab y+."),
        "arm": Key(_list(_turn), about='[["y+", deg], ["x-", deg]], outermost first.'),
        "direct_beam": Key(
            _list(number(), 2),
            about="[row, col] that the direct beam hits with the arm at zero, in the data as stored: where the arm does"
            " not point at the pattern's centre; default: from the data, where the arm is.",
        ),
        "rocking_axis": Key(axis_as_given, about='such as "y+", or three numbers; default: from the data file.'),
        "rocking_step_deg": Key(number(at_least=-5, at_most=5), about="angles = step * (frame - frames // 2)."),
        "rocking_frames": Key(_at_least_1, about="with rocking_step_deg where there are no data to count."),
        "rocking_angles_deg": Key(_list(number(at_least=-360, at_most=360))),
        "detector_shape": Key(_list(_at_least_1, 2), about="[rows, cols]."),
        "centre": Key(_point, about="[frame, row, col] that k_h hits, in the cropped data."),
        "beam_polarization": _argument(
            Experiment,
            "beam_polarization",
            _either(
                "'horizontal', 'vertical', 'unpolarized' or [x, y]",
                choice("horizontal", "vertical", "unpolarized"),
                _list(number(), 2),
            ),
        ),
        "orientation": _argument(
            Experiment, "orientation", choice(*ORIENTATIONS), "model z along k_h, or k_0 + k_h (2 theta up to 178 deg)."
        ),
    },
    "crystal": {
        "name": Key(_name, ""),
        "hkl": Key(_list(integer(), 3)),
        "material": Key(_text, about="name or CIF file, see `pendel.susceptibility`; instead of the three chi."),
        "lattice_nm": Key(
            _either("a number or [a, b, c]", _spacing, _list(_spacing, 3)), about="instead of the material's own."
        ),
        "debye_waller_nm2": Key(number(at_least=0), about="B of all atoms, instead of their own."),
        "chi_0": Key(_complex, about="[real, imaginary]."),
        "chi_h": Key(_complex, about="sigma: without the polarisation factor."),
        "chi_hbar": Key(_complex, about="default: chi_h."),
        "polarization": Key(_fractions, about="{sigma = .., pi = ..}; default: from beam_polarization."),
    },
    "model": {
        "shape": Key(
            _list(_at_least_1, 3),
            about='[nz, ny, nx]; with recipe.method = "solve" of the box on voxels of the data\'s resolution, which is'
            " kept whatever voxels are chosen.",
        ),
        "voxel_nm": Key(
            _either("'auto', 'data', a number or [dz, dy, dx]", choice("auto", "data"), _voxel, _list(_voxel, 3)),
            "auto",
            "of the result. data: of the data's resolution, `Experiment.suggest_voxel`. auto: with recipe.method ="
            ' "solve" as fine as the light asks for, else data.',
        ),
        "resolution_nm": Key(_voxel, about='upper bound of dx and dy, where voxel_nm is "auto" or "data".'),
        "transport": _argument(Model, "transport", choice(*TRANSPORTS)),
        "scheme": _argument(Model, "scheme", choice(*SCHEMES)),
        "dtype": _argument(Model, "dtype", choice("complex64", "complex128")),
        "coupling": _argument(Model, "coupling", choice("dynamical", "kinematic")),
        "device": _argument(Model, "device", _text, '"cpu", "cuda" or "cuda:N".'),
        "threads": _argument(Model, "threads", _at_least_1, "of the CPU; default: all."),
        "resync": _argument(
            Model,
            "resync",
            _at_least_1,
            "layers reversed at most: for crystals that absorb too much, 16 to begin with.",
        ),
        "point_spread": Key(
            _either("a number >= 0 or [row, col]", number(at_least=0), _list(number(at_least=0), 2)),
            0.0,
            "rms width of the detector's point spread, pixels.",
        ),
        "coherence_um": Key(
            _list(_length_or_inf, 2),
            about="transverse coherence lengths [horizontal, vertical], rms widths; inf: coherent.",
        ),
        "bandwidth": Key(number(at_least=0, below=1), 0.0, "relative rms width of the wavelengths."),
        "coherence_modes": Key(_at_least_1, about="settings per frame, each a sweep; default: as many as it takes."),
    },
    "start": {
        "kind": Key(
            choice(*STARTS),
            "kinematic",
            'solid: with recipe.method = "solve" or "multiscale", for crystals of an extinction length and more.',
        ),
        "path": Key(_text, about='result to start from, a file or a folder of cohere, with kind = "file".'),
        "external": _external,
        "resample": Key(
            flag,
            False,
            "put a result of pendel on other voxels, in a box or a frame that differ a little, on those of this run;"
            " else they have to be the same.",
        ),
        "iterations": _argument(kinematic_start, "iterations", _at_least_1, "of the phasing."),
        "trial_epochs": _argument(
            kinematic_start, "trial_epochs", _at_least_0, "given to each twin before the better one is kept."
        ),
        "seed": _argument(kinematic_start, "seed", _at_least_0, "of the phasing and the trials."),
        "size_nm": Key(
            _either("a number or [z, y, x]", _size, _list(_size, 3)),
            about="of the crystal, with flat and solid; smooth can do without.",
        ),
    },
    "recipe": {
        "method": Key(
            choice(*METHODS),
            about="solve: from nothing, on voxels as fine as the light asks for, with [solve]; multiscale: coarse to"
            ' fine on given voxels, with [multiscale]. Default: solve with start.kind = "kinematic", else adam.',
        ),
        "polish_rounds": Key(_at_least_0, 0, "rounds of `pendel.polish` at the end, all pixels in."),
        "checkpoint": Key(_text, about="HDF5 file for --resume."),
        **_keys_of(recipe_fields()),
    },
    # counts and seed are given by likelihood and seed of [recipe]
    "multiscale": _keys_of(dataclasses.fields(MultiscaleRecipe), "counts", "seed"),
    "solve": _keys_of(dataclasses.fields(SolveRecipe), "counts", "seed"),
    "simulate": {
        "maker": Key(
            choice(*MAKERS),
            "wide-angle",
            "wide-angle: optics that know nothing of the model, on voxels a quarter as wide as the data resolve; model:"
            " the model itself.",
        ),
        "crystal": Key(
            choice(*crystals.KINDS),
            about="one of `pendel.analysis.crystals`, with size_nm, instead of shape and strain.",
        ),
        "crystal_seed": Key(_at_least_0, 0, "of such a crystal."),
        "shape": Key(choice(*SHAPES), "cube"),
        "size_nm": Key(
            _either("a number or [x, y, z]", _size, _list(_size, 3)),
            about="edge (or three) of a cube, diameter of a sphere, between {111} facets of a truncated octahedron,"
            " largest extent of a crystal.",
        ),
        "rotation_deg": Key(
            _either("a number or three numbers (about x, y, z)", number(), _point),
            0.0,
            "about model y, or about x, then y, then z.",
        ),
        "strain": Key(choice(*STRAINS), "none"),
        "strength": Key(number(), 1.0, "largest phase, rad."),
        "photons": Key(_positive, about="in the brightest pixel; default: no noise."),
        "seed": Key(_at_least_0, 0, "of the noise, and of [disturbances]."),
    },
    # what a beamline adds; photons and seed are those of [simulate]
    "disturbances": {
        "flux_jitter": _disturbance("flux_jitter", _not_below_0, "rms of the logarithm of every frame's flux."),
        "flux_drift": _disturbance("flux_drift", _not_below_0, "amplitude of its slow change, relative."),
        "background": _disturbance("background", _not_below_0, "counts per pixel and frame."),
        "background_jitter": _disturbance("background_jitter", _not_below_0, "rms of its logarithm, by frames."),
        "streak": _disturbance("streak", _not_below_0, "counts on the ridge of a streak across the detector."),
        "angle_jitter": _disturbance("angle_jitter", _not_below_0, "rms error of the rocking angles, steps."),
        "visibility": _disturbance(
            "visibility", number(above=0, at_most=1), "of fringes as fine as the crystal is large: coherence."
        ),
        "bandwidth": _disturbance("bandwidth", _not_below_0, "rms of the energy, relative."),
        "point_spread": _disturbance("point_spread", _not_below_0, "rms of the detector's point spread, pixels."),
        "beam_stop": _disturbance("beam_stop", _not_below_0, "radius, pixels, around k_h."),
        "gap": _disturbance("gap", flag, "between two modules of the detector, dead."),
        "saturation": _disturbance("saturation", _positive, "counts at which a pixel stops and is masked."),
    },
    "output": {
        "path": Key(_text),
        "pictures": Key(flag, True),
    },
}


def listing() -> str:
    """All keys with their defaults, commented out, and what they mean: a configuration file to begin with."""
    return listing_of({f"[{section}]": keys for section, keys in SCHEMA.items()})


def listing_of(tables: dict[str, dict[str, Key]]) -> str:
    """All keys of {title: keys}, commented out."""
    lines = []
    for title, keys in tables.items():
        lines += ["", title] if title else [""]
        for name, key in keys.items():
            lines += textwrap.wrap(key.about, LINE, initial_indent="# ", subsequent_indent="# ")
            lines.append(f"#{name} = {_toml(key.default)}".rstrip())
    return "\n".join(lines[1:])


def _toml(value):
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    return f'"{value}"' if isinstance(value, str) else f"{value}"
