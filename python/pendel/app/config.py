"""TOML configuration of a run; unknown keys and wrong types are refused. The keys are those of `pendel.app.schema`.

Keys carry their unit in the name (`energy_keV`, `distance_mm`); everything handed on is SI. A key set in the file
wins over what the data file says. `load` gives a `Config` with one namespace per section: ``config.recipe.epochs``.
"""

import difflib
import math
import re
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from .. import io
from ..base import checks
from ..base.constants import KEV
from ..base.reading import read_text
from ..experiment.coherence import Coherence
from ..experiment.crystal import Crystal
from ..experiment.geometry import Experiment
from ..experiment.of_scans import through_centre
from ..experiment.structure_factor import susceptibility
from ..io import beamlines
from ..io.array_files import read_mask, three_axes
from ..io.npy_files import read_array
from ..io.scans import crop_start
from ..model.model import Model
from ..model.ranks import ALONE
from .errors import ConfigError
from .methods import options_of
from .schema import SCHEMA

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

OTHER_ENERGY = 0.01  # relative: more is another one, not another calibration of it
MOST_PARTS = 100  # of a key: a section and a name are two

__all__ = ["Config", "ConfigError", "load", "loads"]


class Config:
    """A checked configuration: one namespace per section, such as ``config.recipe.epochs``; keys not set have their
    default. Two are called ``experiment_keys`` and ``crystal_keys``: `experiment` and `crystal` build the objects
    themselves.

    ``given``: the dotted keys that were set. ``folder``: relative paths start here. ``text``: the TOML as read,
    overrides added. ``ranks``: those of the run, of which `make_model` tells the model.
    """

    # as the sections of `SCHEMA` are called
    data: SimpleNamespace
    experiment_keys: SimpleNamespace
    crystal_keys: SimpleNamespace
    model: SimpleNamespace
    start: SimpleNamespace
    recipe: SimpleNamespace
    multiscale: SimpleNamespace
    solve: SimpleNamespace
    simulate: SimpleNamespace
    disturbances: SimpleNamespace
    output: SimpleNamespace

    def __init__(self, values, folder=".", text=""):
        self.folder, self.text, self.given, self.ranks = Path(folder), text, set(), ALONE
        for section, table in values.items():
            _refuse_unknown(section, table)
            self.given |= {f"{section}.{key}" for key in table}
        for section in SCHEMA:
            table = _checked(section, values.get(section, {}))
            setattr(self, _attribute(section), SimpleNamespace(**table))
        if self.recipe.method is None:
            self.recipe.method = "solve" if self.start.kind == "kinematic" else "adam"

    def section(self, name) -> SimpleNamespace:
        """The keys of a section by its name in the file."""
        return getattr(self, _attribute(name))

    def need(self, key):
        """Value of the dotted ``key``; ConfigError where it is not set."""
        section, name = key.split(".")
        value = getattr(self.section(section), name)
        if value is None:
            raise ConfigError(f"{key}: expected a value, got none; set it in the config file or with --set")
        return value

    def path(self, key):
        """The path in ``key`` (of several the first), relative ones from the folder of the config file."""
        return self.paths(key)[0]

    def paths(self, key):
        """The paths in ``key``, one or several."""
        value = self.need(key)
        return [self.folder / item for item in ((value,) if isinstance(value, str) else value)]

    def scan(self, path=None) -> io.Scan:
        """The measured `pendel.io.Scan` that [data] asks for (or the one at ``path``): read, masked, summed where there
        are several, cropped.
        """
        data = self.data
        paths = [Path(path)] if path else self.paths("data.path")
        try:
            scan = io.sum_scans([self._read(path) for path in paths])
        except ValueError as error:
            if not str(error).startswith("scans"):
                raise
            raise ConfigError(f"data.path: {error}") from None
        if not data.monitor:
            scan.flux = None
        elif scan.flux is None:
            raise ConfigError(
                f"data.monitor: expected a scan that knows its incident intensity, got none in {paths[0]}"
            )
        io.tell_of_frames(scan)
        try:
            return io.crop_scan(scan, frames=data.frames, shape=data.crop, centre=data.centre)
        except ValueError as error:
            name, _, text = str(error).partition(": ")
            keys = {"frames": "data.frames", "shape": "data.crop", "centre": "data.centre"}
            if name.split("[")[0] not in keys:
                raise
            raise ConfigError(f"{keys[name.split('[')[0]]}: {text}") from None

    def _read(self, path):
        """The scan at a path, with what [data] masks and measured beside it."""
        data = self.data
        options = {name: getattr(data, name) for name in ("scan", "dark", "whitefield", "saturation", "external")}
        given = self.experiment_keys.rocking_angles_deg, self.experiment_keys.rocking_step_deg
        options["rocking"] = given == (None, None)
        scan = self._beamline(path).read(path, **options)
        if data.hot_pixels:
            scan.mask = scan.mask & io.hot_pixel_mask(scan.data)
        if data.mask is not None:
            scan.mask = scan.mask & _read_mask(self.path("data.mask"), scan.data.shape)
        if data.background is not None:
            scan.background = _read_background(self.path("data.background"), scan.data.shape)
        return scan

    def _beamline(self, path):
        try:
            return beamlines.find(self.data.format, path)
        except ValueError as error:
            raise ConfigError(f"data.format: {error}") from None

    def experiment(self, scan=None) -> Experiment:
        """`pendel.Experiment` from [experiment], completed by what ``scan`` knows. ConfigError names a
        missing key.
        """
        this = self.experiment_keys
        arguments = {
            "energy": _set_or_known("energy_keV", _times(this.energy_keV, KEV), scan, "energy"),
            "distance": _set_or_known("distance_mm", _times(this.distance_mm, 1e-3), scan, "distance"),
            "pixel_size": _set_or_known("pixel_um", _times(this.pixel_um, 1e-6), scan, "pixel_size"),
            "detector_shape": self._detector_shape(scan),
            "arm": _set_or_known("arm", self._arm(), scan, "arm"),
            "rocking_axis": self._rocking_axis(scan),
            "rocking_angles": self._angles(scan),
            "centre": getattr(scan, "centre", None) if this.centre is None else this.centre,
            "beam_polarization": this.beam_polarization,
            "orientation": this.orientation,
        }
        self._tell_differences(scan)
        try:
            return Experiment(**arguments | self._through_centre(arguments, scan))
        except (TypeError, ValueError) as error:
            raise ConfigError(f"experiment.{error}") from None

    def _tell_differences(self, scan):
        """UserWarning where the energy that is set is not the one that the scan knows."""
        ours, its = self.experiment_keys.energy_keV, getattr(scan, "energy", None)
        if ours is not None and its is not None and abs(ours * KEV / its - 1) > OTHER_ENERGY:
            warnings.warn(
                f"experiment.energy_keV: expected about {its / KEV:.5g}, as the data say, got {ours:.5g}, which counts",
                stacklevel=3,
            )

    def _rocking_axis(self, scan):
        """Lab axis; that of simulated frames is y+ where nothing is set."""
        this = self.experiment_keys
        if scan is None:
            return this.rocking_axis or "y+"
        return _set_or_known("rocking_axis", this.rocking_axis, scan, "rocking_axis")

    def _through_centre(self, arguments, scan):
        """{arm, distance} of the pixel that k_h hits where the direct beam's pixel is known, else nothing."""
        known = {} if scan is None else scan.metadata
        direct_beam, of_file = self.experiment_keys.direct_beam, known.get("direct_beam")
        if direct_beam is None and of_file is None:
            return {}
        first = (0, 0) if scan is None else crop_start(scan)[1:]
        if direct_beam is None and self._arm() is not None:  # files keep the beam of other days
            centre = arguments["centre"]
            pixel = [n // 2 for n in arguments["detector_shape"]] if centre is None else centre[1:]
            _tell_of_direct_beam(of_file, np.add(pixel, first))
            return {}
        return through_centre(arguments, direct_beam or of_file, first)

    def _arm(self):
        """Turns of the detector arm in rad, or None."""
        this = self.experiment_keys
        if this.two_theta_deg is None:
            return None if this.arm is None else tuple((axis, math.radians(angle)) for axis, angle in this.arm)
        if this.arm is not None:
            raise ConfigError("experiment.two_theta_deg: expected this or experiment.arm, got both")
        return (("y+", math.radians(this.two_theta_deg)),)

    def _detector_shape(self, scan):
        """(rows, cols)."""
        shape = self.experiment_keys.detector_shape
        if scan is None:
            return _set_or_known("detector_shape", shape)
        rows_and_columns = scan.data.shape[1:]
        if shape not in (None, rows_and_columns):
            raise ConfigError(
                f"experiment.detector_shape: expected {list(rows_and_columns)} as in the data, got {list(shape)}"
            )
        return rows_and_columns

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
        if this.rocking_step_deg is None:
            return _set_or_known("rocking_step_deg", None, scan, "rocking_angles")
        if count is None:
            raise ConfigError("experiment.rocking_frames: expected a number with experiment.rocking_step_deg, got none")
        return np.radians(this.rocking_step_deg * (np.arange(count) - count // 2))

    def crystal(self, experiment=None) -> Crystal:
        """`pendel.Crystal` from [crystal]; ``experiment`` gives the energy where a material is named."""
        this = self.crystal_keys
        if this.material is not None:
            return self._tabulated(experiment)
        for key in ("lattice_nm", "debye_waller_nm2"):
            if getattr(this, key) is not None:
                raise ConfigError(f"crystal.{key}: expected crystal.material with it, got none")
        chi_0, chi_h = self.need("crystal.chi_0"), self.need("crystal.chi_h")
        try:
            return Crystal(chi_0, chi_h, this.chi_hbar, name=this.name, hkl=this.hkl)
        except ValueError as error:
            raise ConfigError(f"crystal.{error}") from None

    def _tabulated(self, experiment):
        """The crystal of crystal.material."""
        this = self.crystal_keys
        given = [f"crystal.{key}" for key in ("chi_0", "chi_h", "chi_hbar") if getattr(this, key) is not None]
        if given:
            raise ConfigError(f"crystal.material: expected this or {given[0]}, got both")
        hkl = self.need("crystal.hkl")
        path = self.folder / this.material
        material = str(path) if path.is_file() else this.material
        lattice = this.lattice_nm if this.lattice_nm is None else np.multiply(this.lattice_nm, 1e-9).tolist()
        B = _times(this.debye_waller_nm2, 1e-18)
        try:
            found = susceptibility(
                material, hkl=hkl, lattice=lattice, wavelength=experiment.wavelength, debye_waller=B
            ).crystal()
        except (ImportError, OSError, TypeError, ValueError) as error:
            raise ConfigError(f"crystal.material: {error}") from None
        return replace(found, name=this.name or found.name)

    def make_model(self, experiment, shape, voxel) -> Model:
        """`pendel.Model` of [model] and [crystal] on the given grid."""
        names = ("coupling", "scheme", "transport", "dtype", "device", "threads", "resync")
        options = {name: getattr(self.model, name) for name in names}
        options |= {"point_spread": self.model.point_spread, "coherence": self._coherence(), "comm": self.ranks.comm}
        crystal = self.crystal(experiment)
        try:
            return Model(experiment, crystal, tuple(shape), voxel, self.crystal_keys.polarization, **options)
        except (TypeError, ValueError, RuntimeError) as error:  # the last: no device to use
            raise ConfigError(f"model.{error}") from None

    def _coherence(self):
        """`Coherence` of the beam, or None where nothing of it is set."""
        this = self.model
        if this.coherence_um is None and not this.bandwidth:
            return None
        horizontal, vertical = (
            (math.inf, math.inf) if this.coherence_um is None else np.multiply(this.coherence_um, 1e-6)
        )
        return Coherence(float(horizontal), float(vertical), this.bandwidth, this.coherence_modes)

    def recipe_arguments(self) -> dict:
        """Keywords of the algorithm that recipe.method names, see `pendel.app.methods.options_of`."""
        return options_of(self)

    def voxel(self, experiment) -> tuple[float, float, float]:
        """Voxel (dz, dy, dx) in m: as set, or suggested by ``experiment`` for "auto" and "data"."""
        sizes = self.model.voxel_nm
        if isinstance(sizes, str):
            transport = self.model.transport if self.model.transport in ("box", "fourier") else "shift"
            return experiment.suggest_voxel(_times(self.model.resolution_nm, 1e-9), transport=transport)
        return tuple(1e-9 * v for v in (sizes if isinstance(sizes, tuple) else [sizes] * 3))

    def wanted_voxel(self, experiment) -> tuple[float, float, float] | str:
        """`voxel`, or "auto" where it is left to the method."""
        left = self.model.voxel_nm == "auto" and self.model.resolution_nm is None
        return "auto" if left else self.voxel(experiment)


def _attribute(section):
    return f"{section}_keys" if section in ("experiment", "crystal") else section


def _checked(section, given):
    """{key: value} of all keys of a section; ConfigError names the one that is wrong."""
    table = {}
    for name, key in SCHEMA[section].items():
        try:
            table[name] = key.check(f"{section}.{name}", given[name]) if name in given else key.default
        except (TypeError, ValueError) as error:
            raise ConfigError(str(error)) from None
    return table


def _set_or_known(key, value, scan=None, attribute=""):
    """``value`` as set in [experiment], else the scan's; ConfigError names the key where both are None."""
    value = getattr(scan, attribute, None) if value is None else value
    if value is None:
        raise ConfigError(f"experiment.{key}: expected a value, got none in the config and none in the data")
    return value


def _tell_of_direct_beam(pixel, centre):
    """UserWarning where a file's direct beam would turn the arm that is set, and more than by rounding."""
    if np.hypot(*np.subtract(pixel, centre)) > 1:
        text = [round(float(index), 2) for index in pixel]
        warnings.warn(
            f"experiment.direct_beam: expected a pixel with the arm that is set, got none; the data's {text} does not"
            f" turn this arm, which points at the pattern's centre; set experiment.direct_beam = {text} to have it"
            " turned",
            stacklevel=4,
        )


def _times(value, factor):
    """A value in SI units, None stays None."""
    return None if value is None else value * factor


def _refuse_unknown(section, table):
    """ConfigError for a section or key that is not in the schema."""
    if section not in SCHEMA:
        raise ConfigError(f"{section}: expected a known section, got {section!r}{_suggest(section)}")
    if not isinstance(table, dict):
        raise ConfigError(f"{section}: expected a section [{section}], got {table!r}")
    for key in table:
        if key not in SCHEMA[section]:
            raise ConfigError(f"{section}.{key}: expected a known key, got {key!r}{_suggest(f'{section}.{key}')}")


def _suggest(key):
    """The known section or dotted key closest to ``key``, as the end of a message."""
    section, _, name = key.partition(".")
    if not name:
        close = difflib.get_close_matches(key, SCHEMA, n=1)
        return f"; did you mean {close[0]}?" if close else f"; known: {', '.join(SCHEMA)}"
    close = difflib.get_close_matches(name, SCHEMA[section], n=1)
    close = [f"{section}.{c}" for c in close] or [f"{s}.{name}" for s in SCHEMA if name in SCHEMA[s]]
    return (
        f"; did you mean {close[0]}?" if close else "; known: " + ", ".join(f"{section}.{k}" for k in SCHEMA[section])
    )


def _read_mask(path, shape):
    try:
        mask = three_axes(read_mask(path))
    except OSError as error:
        raise ConfigError(f"data.mask: {error}") from None
    except ValueError as error:
        raise ConfigError(f"data.mask: expected a .npy or .npz with the array 'mask', got {error}") from None
    try:
        return checks.good_pixels("data.mask", mask, shape)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _read_background(path, shape):
    try:
        background = read_array(path, "background", "dark", "data")
    except (OSError, ValueError) as error:
        raise ConfigError(f"data.background: expected a .npy file, got {path} ({error})") from None
    if background.dtype.kind not in "iuf" or background.shape not in (shape, shape[1:]):
        got = f"{background.dtype} of shape {background.shape}"
        raise ConfigError(f"data.background: expected counts of shape {shape} or {shape[1:]}, got {got}")
    if not (np.isfinite(background) & (background >= 0)).all():
        raise ConfigError(f"data.background: expected finite counts >= 0, got others in {path}")
    return background.astype(np.float32)


def parsed(text: str, where: str) -> dict:
    """The values of a TOML text. Raises ConfigError that begins with ``where``."""
    if _longest_key(text) > MOST_PARTS:
        raise ConfigError(f"{where}: expected TOML, got a key of more than {MOST_PARTS} parts")
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # TOMLDecodeError, and numbers of thousands of digits
        raise ConfigError(f"{where}: expected TOML, got {error}") from None


def _longest_key(text):
    """Parts of the longest a.b.c in a text: the time that a parser takes grows with their square."""
    longest = run = 0
    for part in text.split("."):
        run = run + 1 if re.fullmatch(r"[ \t]*[\w\"'-]*[ \t]*", part) else 0
        longest = max(longest, run)
    return longest


def loads(text, overrides=(), folder=".") -> Config:
    """`Config` from TOML text. ``overrides``: strings "section.key=value" with a TOML value (text in quotes)."""
    values = parsed(text, "config")
    for override in overrides:
        section, name, value = _parse_override(override)
        values.setdefault(section, {})
        if isinstance(values[section], dict):
            values[section][name] = value
    return Config(values, folder, text + "".join(f"\n# --set {override}" for override in overrides))


def _parse_override(override):
    """(section, key, value) of "section.key=value"."""
    key, sign, value = str(override).partition("=")
    key = key.strip()
    if not sign or key.count(".") != 1 or "\n" in value:
        raise ConfigError(f"--set {override}: expected section.key=value, got {override!r}")
    try:
        value = tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):
        hint = f"; text needs quotes: '{key}=\"{value.strip()}\"'"
        raise ConfigError(f"{key}: expected a TOML value, got {value.strip()!r}{hint}") from None
    section, name = key.split(".")
    if section not in SCHEMA:
        raise ConfigError(f"{section}: expected a known section, got {section!r}{_suggest(section)}")
    return section, name, value


def load(path, overrides=()) -> Config:
    """`Config` from the TOML file ``path``. Raises ConfigError naming the key or the file."""
    path = Path(path)
    try:
        text = read_text(path, "a TOML file")
    except (OSError, ValueError) as error:
        raise ConfigError(str(error)) from None
    try:
        return loads(text, overrides, path.parent)
    except ConfigError as error:
        raise ConfigError(str(error).replace("config: expected TOML", f"{path}: expected TOML", 1)) from None
