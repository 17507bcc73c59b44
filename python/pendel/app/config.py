"""TOML configuration of a run: every key with its type, default and meaning; unknown keys and wrong types are refused.

Keys carry their unit in the name (`energy_keV`, `distance_mm`); everything handed on is SI. A key set in the file
wins over what the data file says. `load` gives a `Config` with one namespace per section: ``config.recipe.epochs``.
"""

import difflib
import inspect
import math
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from ..base.constants import KEV
from .schema import SCHEMA

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib


class ConfigError(ValueError):
    """A config file or override that cannot be used; the message begins with the dotted key, or with the file."""


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
        from .. import io as beamline

        path, data = Path(path) if path else self.path("data.path"), self.data
        kind = data.format if data.format != "auto" else "34idc" if path.is_dir() else "cxi"
        if kind == "cxi":
            scan = beamline.read_scan(path)
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
            name, _, text = str(error).partition(": ")
            keys = {"frames": "data.frames", "shape": "data.crop", "centre": "data.centre"}
            if name.split("[")[0] not in keys:
                raise
            raise ConfigError(f"{keys[name.split('[')[0]]}: {text}") from None

    def experiment(self, scan=None):
        """`pendel.experiment.Experiment` from [experiment], completed by what ``scan`` knows. ConfigError names a
        missing key.
        """
        from ..experiment.geometry import Experiment

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
        arguments = dict(
            energy=pick("energy_keV", si("energy_keV", KEV), known["energy"]),
            distance=pick("distance_mm", si("distance_mm", 1e-3), known["distance"]),
            pixel_size=pick("pixel_um", si("pixel_um", 1e-6), known["pixel_size"]),
            detector_shape=tuple(pick("detector_shape", this.detector_shape, shape)),
            arm=pick("arm", arm, known["arm"]),
            rocking_axis=pick("rocking_axis", this.rocking_axis, known["rocking_axis"] or "y+"),
            rocking_angles=self._angles(scan),
            centre=None if centre is None else tuple(centre),
            beam_polarization=_tuple(this.beam_polarization),
            orientation=this.orientation,
        )
        try:
            return Experiment(**arguments)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"experiment.{error}") from None

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

    def crystal(self, experiment=None):
        """`pendel.model.Crystal` from [crystal]; ``experiment`` gives the energy where a material is named."""
        from ..experiment.crystal import Crystal

        this = self.crystal_keys
        hkl = None if this.hkl is None else tuple(this.hkl)
        if this.material is not None:
            return self._tabulated(experiment, hkl)
        for key in ("lattice_nm", "debye_waller_nm2"):
            if getattr(this, key) is not None:
                raise ConfigError(f"crystal.{key}: expected crystal.material with it, got none")
        try:
            return Crystal(
                self.need("crystal.chi_0"), self.need("crystal.chi_h"), this.chi_hbar, name=this.name, hkl=hkl
            )
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError(f"crystal.{error}") from None

    def _tabulated(self, experiment, hkl):
        from ..experiment.structure_factor import susceptibility

        this = self.crystal_keys
        given = [f"crystal.{key}" for key in ("chi_0", "chi_h", "chi_hbar") if getattr(this, key) is not None]
        if given:
            raise ConfigError(f"crystal.material: expected this or {given[0]}, got both")
        lattice = this.lattice_nm if this.lattice_nm is None else np.multiply(this.lattice_nm, 1e-9).tolist()
        B = None if this.debye_waller_nm2 is None else this.debye_waller_nm2 * 1e-18
        path = self.folder / this.material
        material = str(path) if path.is_file() else this.material
        options = {"lattice": lattice, "wavelength": experiment.wavelength, "debye_waller": B}
        try:
            found = susceptibility(material, hkl=self.need("crystal.hkl"), **options).crystal()
        except ConfigError:
            raise
        except (ImportError, OSError, TypeError, ValueError) as error:
            raise ConfigError(f"crystal.material: {error}") from None
        return replace(found, name=this.name or found.name)

    def make_model(self, experiment, shape, voxel):
        """`pendel.model.Model` of [model] and [crystal] on the given grid."""
        from ..model.model import Model

        names = ("coupling", "scheme", "transport", "dtype", "device", "threads", "resync")
        options = {name: getattr(self.model, name) for name in names}
        crystal = self.crystal(experiment)
        try:
            return Model(experiment, crystal, tuple(shape), voxel, self.crystal_keys.polarization, **options)
        except (TypeError, ValueError, RuntimeError) as error:  # the last: no device to use
            raise ConfigError(f"model.{error}") from None

    def recipe_arguments(self):
        """Keywords of `pendel.reconstruct`, `pendel.lbfgs` or `pendel.multiscale`, by method, without checkpoint files.

        ConfigError names a key that contradicts another, a UserWarning those that the method has no use for.
        """
        recipe = vars(self.recipe).copy()
        method, _, _ = (recipe.pop(key) for key in ("method", "checkpoint", "polish_rounds"))
        if recipe["background"] and recipe["likelihood"] != "poisson":
            raise ConfigError(
                f"recipe.background: expected 0 with recipe.likelihood = {recipe['likelihood']!r}, got "
                f"{recipe['background']:g}"
            )
        if method == "multiscale":
            return self._multiscale_arguments(recipe)
        given = [f"multiscale.{key}" for key in vars(self.multiscale) if f"multiscale.{key}" in self.given]
        if given:
            warnings.warn(f"{', '.join(given)}: only used by recipe.method = 'multiscale'", stacklevel=2)
        if method == "lbfgs":
            from ..fit.quasi_newton import lbfgs

            recipe["iterations"] = recipe.pop("epochs")
            unused = [key for key in recipe if key not in inspect.signature(lbfgs).parameters]
            for key in ("phase_only_epochs", "refine_angles", "refine_intensities"):
                if recipe[key]:
                    raise ConfigError(f"recipe.{key}: expected none with recipe.method = 'lbfgs', got {recipe[key]!r}")
            given = [f"recipe.{key}" for key in unused if f"recipe.{key}" in self.given]
            if given:
                warnings.warn(f"{', '.join(given)}: not used by recipe.method = 'lbfgs'", stacklevel=2)
            recipe = {key: value for key, value in recipe.items() if key not in unused}
        return recipe

    def _multiscale_arguments(self, recipe):
        """Keywords of `pendel.multiscale`: its own defaults of what [recipe] has too, where that is not set."""
        from ..fit.polishing import polish

        taken = ("amplitude_bound", "atv_weight", "background", "free_fraction")
        own = {"likelihood", "method", "seed", "checkpoint", *taken}
        assert set(taken) <= set(inspect.signature(polish).parameters)
        unused = [key for key in sorted(self.given) if key.startswith("recipe.") and key[7:] not in own]
        if unused:
            warnings.warn(f"{', '.join(unused)}: not used by recipe.method = 'multiscale'", stacklevel=3)
        options = {key: recipe[key] for key in taken if f"recipe.{key}" in self.given}
        options |= {key: value for key, value in vars(self.multiscale).items()}
        return options | {"counts": recipe["likelihood"] == "poisson", "seed": recipe["seed"]}

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
