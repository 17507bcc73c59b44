"""TOML configuration of a run: every key with its type, default and meaning; unknown keys and wrong types are refused.

Keys carry their unit in the name (`energy_keV`, `distance_mm`); everything handed on is SI. A key set in the file
wins over what the data file says. `load` gives a `Config` with one namespace per section: ``config.recipe.epochs``.
"""

import difflib
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from ._cxi import KEV

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib


class ConfigError(ValueError):
    """A config file or override that cannot be used; the message begins with the dotted key, or with the file."""


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
        for i, entry in enumerate(value):
            try:
                value[i] = item(entry)
            except ValueError as error:
                raise ValueError(f"item {i}: {error}") from None
        return value

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
    if value == "plateau":
        return value
    pairs = _either("'plateau' or a list of [epoch, rate]", _list(_list(_number(least=0), 2)))(value)
    if [p[0] for p in pairs] != sorted({p[0] for p in pairs}):
        _fail("growing epochs in [epoch, rate]", value)
    return [(int(epoch), rate) for epoch, rate in pairs]


_positive = _number(above=0)
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
        "beam_polarization": (
            _either("'horizontal', 'vertical', 'unpolarized' or [x, y]", _choice("horizontal", "vertical", "unpolarized"), _list(_number(), 2)),
            "horizontal",
        ),
    },
    "crystal": {
        "name": (_text, ""),
        "hkl": (_list(_integer(-99), 3), None),
        "chi_0": (_complex, None),
        "chi_h": (_complex, None),  # sigma: without the polarisation factor
        "chi_hbar": (_complex, None),  # default: chi_h
        "polarization": (_fractions, None),  # default: from beam_polarization
    },
    "model": {
        "shape": (_size, None),  # [nz, ny, nx]
        "voxel_nm": (_either("'auto', a number or [dz, dy, dx]", _choice("auto"), _positive, _list(_positive, 3)), "auto"),
        "resolution_nm": (_positive, None),  # with voxel_nm = "auto": layers near this thickness
        "transport": (_choice("auto", "shift", "fourier"), "auto"),
        "scheme": (_choice("strang", "etd2rk"), "strang"),
        "dtype": (_choice("complex64", "complex128"), "complex64"),
        "coupling": (_choice("dynamical", "kinematic"), "dynamical"),
        "device": (_text, "cpu"),
        "threads": (_integer(1), None),
    },
    "start": {
        "kind": (_choice("kinematic", "flat", "file"), "kinematic"),
        "path": (_text, None),  # result file to start from, with kind = "file"
        "iterations": (_integer(1), 600),
        "runs": (_integer(1), 1),  # random starts, of which the best is kept
        "seed": (_integer(0), 0),
        "size_nm": (_either("a number or [z, y, x]", _positive, _list(_positive, 3)), None),  # box for kind = "flat"
    },
    "recipe": {
        "epochs": (_integer(0), 600),
        "batches": (_integer(1), 5),
        "learning_rate": (_positive, 0.15),
        "schedule": (_schedule, None),  # "plateau" or [[epoch, rate], ...]
        "amplitude_bound": (_positive, None),
        "atv_weight": (_number(least=0), 0.0),
        "shrink_wrap_every": (_integer(0), 10),  # epochs; 0: never
        "shrink_wrap_threshold": (_number(above=0, most=1), 0.15),
        "shrink_wrap_sigma": (_number(least=0), 1.0),  # voxels
        "recentre_every": (_integer(0), 0),  # epochs; 0: never
        "seed": (_integer(0), 0),
        "checkpoint": (_text, None),  # HDF5 file for --resume
        "checkpoint_every": (_integer(1), 50),  # epochs
    },
    "simulate": {
        "shape": (_choice("cube", "sphere", "truncated_octahedron"), "cube"),
        "size_nm": (_either("a number or [x, y, z]", _positive, _list(_positive, 3)), None),
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


class Config:
    """A checked configuration: one namespace per section, such as ``config.recipe.epochs``; keys not set have their
    default. Two are called ``experiment_keys`` and ``crystal_keys``: `experiment` and `crystal` build the objects
    themselves.

    ``given``: the dotted keys that were set. ``folder``: relative paths start here. ``text``: the TOML as read,
    overrides added.
    """

    def __init__(self, values, folder=".", text=""):
        self.folder, self.text, self.given = Path(folder), text, set()
        for section, table in values.items():
            if section not in SCHEMA:
                raise ConfigError(f"{section}: expected a known section, got {section!r}{_suggest(section)}")
            if not isinstance(table, dict):
                raise ConfigError(f"{section}: expected a section [{section}], got {table!r}")
            for key in table:
                if key not in SCHEMA[section]:
                    raise ConfigError(
                        f"{section}.{key}: expected a known key, got {key!r}{_suggest(f'{section}.{key}')}"
                    )
                self.given.add(f"{section}.{key}")
        for section, keys in SCHEMA.items():
            table = dict(values.get(section, {}))
            for key, (check, default) in keys.items():
                try:
                    table[key] = check(table[key]) if key in table else default
                except ValueError as error:
                    raise ConfigError(f"{section}.{key}: {error}") from None
            setattr(self, _attribute(section), SimpleNamespace(**table))

    def need(self, key):
        """Value of the dotted ``key``; ConfigError where it is not set."""
        section, name = key.split(".")
        value = getattr(getattr(self, _attribute(section)), name)
        if value is None:
            raise ConfigError(f"{key}: expected a value, got none; set it in the config file or with --set")
        return value

    def path(self, key):
        """The path in ``key``, relative ones from the folder of the config file."""
        return self.folder / self.need(key)

    def scan(self, path=None):
        """The measured `pendel.io.Scan` that [data] asks for (or the one at ``path``): read, masked, cropped."""
        from . import beamline, io

        path, data = Path(path) if path else self.path("data.path"), self.data
        kind = data.format if data.format != "auto" else "34idc" if path.is_dir() else "cxi"
        if kind == "cxi":
            scan = io.read_scan(path)
        else:
            scan = beamline.read_34idc(path, scan=data.scan, dark=data.dark, whitefield=data.whitefield)
        if data.hot_pixels:
            scan.mask = scan.mask & beamline.hot_pixel_mask(scan.data)
        if data.mask is not None:
            scan.mask = scan.mask & _read_mask(self.path("data.mask"), scan.data.shape)
        crop = None if data.crop is None else tuple(data.crop)
        try:
            return beamline.crop_scan(scan, frames=data.frames, shape=crop, centre=data.centre)
        except ValueError as error:
            key = "data.frames" if str(error).startswith("frames") else "data.crop"
            raise ConfigError(f"{key}: {error}") from None

    def experiment(self, scan=None):
        """`pendel.experiment.Experiment` from [experiment], completed by what ``scan`` knows. ConfigError names a
        missing key.
        """
        from .experiment import Experiment

        this = self.experiment_keys
        arm = (("y+", math.radians(this.two_theta_deg)),) if this.two_theta_deg is not None else this.arm
        if this.two_theta_deg is not None and this.arm is not None:
            raise ConfigError("experiment.two_theta_deg: expected this or experiment.arm, got both")
        if this.arm is not None:
            arm = tuple((axis, math.radians(angle)) for axis, angle in this.arm)

        def pick(key, value, known):
            value = known if value is None else value
            if value is None:
                raise ConfigError(f"experiment.{key}: expected a value, got none in the config and none in the data")
            return value

        def si(key, factor):
            value = getattr(this, key)
            return None if value is None else value * factor

        shape = None if scan is None else scan.data.shape[1:]
        if shape is not None and this.detector_shape is not None and tuple(this.detector_shape) != shape:
            raise ConfigError(
                f"experiment.detector_shape: expected {list(shape)} as in the data, got {this.detector_shape}"
            )
        centre = this.centre if this.centre is not None or scan is None else scan.centre
        known = {
            name: getattr(scan, name, None) for name in ("energy", "distance", "pixel_size", "arm", "rocking_axis")
        }
        return Experiment(
            energy=pick("energy_keV", si("energy_keV", KEV), known["energy"]),
            distance=pick("distance_mm", si("distance_mm", 1e-3), known["distance"]),
            pixel_size=pick("pixel_um", si("pixel_um", 1e-6), known["pixel_size"]),
            detector_shape=tuple(pick("detector_shape", this.detector_shape, shape)),
            arm=pick("arm", arm, known["arm"]),
            rocking_axis=pick("rocking_axis", this.rocking_axis, known["rocking_axis"] or "y+"),
            rocking_angles=self._angles(scan),
            centre=None if centre is None else tuple(centre),
            beam_polarization=_tuple(this.beam_polarization),
        )

    def _angles(self, scan):
        """Rocking angles (frame,) in rad."""
        this = self.experiment_keys
        count = this.rocking_frames if scan is None else len(scan.data)
        if scan is not None and this.rocking_frames not in (None, count):
            raise ConfigError(f"experiment.rocking_frames: expected {count} as in the data, got {this.rocking_frames}")
        if this.rocking_angles_deg is not None:
            if count not in (None, len(this.rocking_angles_deg)):
                raise ConfigError(
                    f"experiment.rocking_angles_deg: expected {count} angles, got {len(this.rocking_angles_deg)}"
                )
            return np.radians(this.rocking_angles_deg)
        if this.rocking_step_deg is not None:
            if count is None:
                raise ConfigError(
                    "experiment.rocking_frames: expected a number with experiment.rocking_step_deg, got none"
                )
            return np.radians(this.rocking_step_deg * (np.arange(count) - count // 2))
        if scan is None or scan.rocking_angles is None:
            raise ConfigError(
                "experiment.rocking_step_deg: expected a value, got none in the config and none in the data"
            )
        return scan.rocking_angles

    def crystal(self):
        """`pendel.model.Crystal` from [crystal]."""
        from .model import Crystal

        this = self.crystal_keys
        hkl = None if this.hkl is None else tuple(this.hkl)
        try:
            return Crystal(
                self.need("crystal.chi_0"), self.need("crystal.chi_h"), this.chi_hbar, name=this.name, hkl=hkl
            )
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError(f"crystal.{error}") from None

    def voxel(self, experiment):
        """Voxel (dz, dy, dx) in m: as set, or suggested by ``experiment`` for "auto"."""
        if self.model.voxel_nm == "auto":
            nm = self.model.resolution_nm
            transport = "fourier" if self.model.transport == "fourier" else "shift"
            return experiment.suggest_voxel(None if nm is None else nm * 1e-9, transport=transport)
        sizes = self.model.voxel_nm
        return tuple(1e-9 * v for v in (sizes if isinstance(sizes, list) else [sizes] * 3))


def _attribute(section):
    return f"{section}_keys" if section in ("experiment", "crystal") else section


def _tuple(value):
    return tuple(value) if isinstance(value, list) else value


def _suggest(key):
    """The known section or dotted key closest to ``key``, as the end of a message."""
    known = [f"{section}.{name}" for section, keys in SCHEMA.items() for name in keys] if "." in key else list(SCHEMA)
    same = [k for k in known if "." in key and k.split(".")[1] == key.split(".")[1]]
    close = same or difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    near = [k for k in known if k.split(".")[0] == key.split(".")[0]] or list(SCHEMA)
    return f"; did you mean {close[0]}?" if close else f"; known: {', '.join(near)}"


def _read_mask(path, shape):
    try:
        mask = np.load(path, allow_pickle=False)
        mask = mask["mask"] if isinstance(mask, np.lib.npyio.NpzFile) else mask
    except FileNotFoundError:
        raise ConfigError(f"data.mask: expected a file, got no such file {path}") from None
    except Exception as error:  # zipfile, EOF, header and key errors: NumPy lets all of them through
        raise ConfigError(f"data.mask: expected a .npy or .npz with the array 'mask', got {path} ({error})") from None
    if mask.dtype.kind not in "bui" or mask.shape not in (shape, shape[1:]):
        raise ConfigError(
            f"data.mask: expected bool of shape {shape} or {shape[1:]}, got {mask.dtype} of shape {mask.shape}"
        )
    return mask.astype(bool)


def _parse(text, where):
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{where}: expected TOML, got {error}") from None


def loads(text, overrides=(), folder="."):
    """`Config` from TOML text. ``overrides``: strings "section.key=value" with a TOML value (text in quotes)."""
    values = _parse(text, "config")
    for override in overrides:
        key, sign, value = str(override).partition("=")
        key = key.strip()
        if not sign or key.count(".") != 1 or "\n" in value:
            raise ConfigError(f"--set {override}: expected section.key=value, got {override!r}")
        try:
            value = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            hint = f"; text needs quotes: '{key}=\"{value.strip()}\"'"
            raise ConfigError(f"{key}: expected a TOML value, got {value.strip()!r}{hint}") from None
        section, name = key.split(".")
        if section not in SCHEMA:
            raise ConfigError(f"{section}: expected a known section, got {section!r}{_suggest(section)}")
        values.setdefault(section, {})
        if isinstance(values[section], dict):
            values[section][name] = value
    return Config(values, folder, text + "".join(f"\n# --set {override}" for override in overrides))


def load(path, overrides=()):
    """`Config` from the TOML file ``path``. Raises ConfigError naming the key or the file."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: expected a TOML file, got {error}") from None
    try:
        return loads(text, overrides, path.parent)
    except ConfigError as error:
        raise ConfigError(str(error).replace("config: expected TOML", f"{path}: expected TOML", 1)) from None
