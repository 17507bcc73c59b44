"""Configuration files: defaults, overrides, builders, and every refusal by its message."""

import dataclasses
import inspect
import re
from pathlib import Path

import numpy as np
import pytest
from pendel import io
from pendel.analysis.disturbances import Disturbances
from pendel.app import config, schema
from pendel.app.methods import METHODS, Method, recipe_fields
from pendel.app.schema import SCHEMA
from pendel.app.starts import STARTS
from pendel.base.recipe import number, option
from pendel.fit.minibatch import MinibatchRecipe
from pendel.fit.nuisances import NuisanceRecipe
from pendel.fit.quasi_newton import LbfgsRecipe
from pendel.recipes.multiscale_recipe import MultiscaleRecipe
from pendel.recipes.solve import SolveRecipe

TEXT = """
[experiment]
energy_keV = 9
distance_mm = 500.0
pixel_um = 55.0
arm = [["y+", 32.174], ["x-", 12.6346]]
rocking_step_deg = 0.005
rocking_frames = 7
detector_shape = [16, 18]

[crystal]
name = "Au"
hkl = [1, 1, 1]
chi_0 = [-7.4e-5, 6e-6]
chi_h = [-6.1e-5, 6e-6]
polarization = {sigma = 0.15, pi = 0.85}

[recipe]
epochs = 20
schedule = [[0, 0.2], [10, 0.1]]
"""


def scan():
    data = np.zeros((5, 12, 14), np.float32)
    data[2, 6, 7] = 10
    return io.Scan(
        data=data, mask=np.ones((12, 14), bool), rocking_angles=np.arange(5) * 1e-4, energy=1.4e-15, distance=0.6,
        pixel_size=(50e-6, 50e-6), centre=(2.0, 6.25, 7.0), arm=(("y+", 0.6),), rocking_axis="y+",
    )  # fmt: skip


def test_defaults_stand_where_nothing_is_set():
    made = config.loads("")
    assert made.recipe.batches == 5 and made.recipe.schedule == "cosine" and made.model.voxel_nm == "auto"
    assert made.start.kind == "kinematic" and made.output.pictures is True and made.given == set()
    assert made.simulate.maker == "wide-angle" and made.wanted_voxel(None) == "auto"


@pytest.mark.parametrize(("kind", "method"), [("kinematic", "solve"), ("flat", "adam"), ("file", "adam")])
def test_the_method_follows_the_start_where_none_is_named(kind, method):
    made = config.loads(f"[start]\nkind = '{kind}'")
    assert made.recipe.method == method and "recipe.method" not in made.given
    assert config.loads(f"[start]\nkind = '{kind}'\n[recipe]\nmethod = 'lbfgs'").recipe.method == "lbfgs"


def test_who_chooses_the_voxel():
    made = config.loads(TEXT)
    experiment = made.experiment()
    suggested, finer = experiment.suggest_voxel(), experiment.suggest_voxel(9e-9)
    assert made.wanted_voxel(experiment) == "auto" and made.voxel(experiment) == suggested
    overrides = {'model.voxel_nm="data"': suggested, "model.voxel_nm=9": (9e-9,) * 3, "model.resolution_nm=9": finer}
    for override, voxel in overrides.items():
        made = config.loads(TEXT, [override])
        assert made.wanted_voxel(experiment) == made.voxel(experiment) == pytest.approx(voxel)


def test_values_are_typed_and_overrides_win():
    made = config.loads(TEXT, ["recipe.epochs=3", 'model.coupling="kinematic"', "model.voxel_nm=[8, 7, 7.5]"])
    assert (
        made.recipe.epochs == 3 and made.model.coupling == "kinematic" and made.recipe.schedule == ((0, 0.2), (10, 0.1))
    )
    assert made.crystal_keys.chi_0 == -7.4e-5 + 6e-6j and made.crystal_keys.polarization == {"sigma": 0.15, "pi": 0.85}
    assert made.voxel(None) == pytest.approx((8e-9, 7e-9, 7.5e-9)) and "recipe.epochs" in made.given
    assert "# --set recipe.epochs=3" in made.text and config.loads(made.text).recipe.epochs == 20


@pytest.mark.parametrize(
    "text, message",
    [
        (
            "[experiment]\nenergy_kev = 9",
            "experiment.energy_kev: expected a known key, .*did you mean experiment.energy_keV?",
        ),
        ("[model]\nepochs = 3", "model.epochs: .*did you mean recipe.epochs?"),
        ("[recipe]\nzzz = 3", "recipe.zzz: expected a known key, got 'zzz'; known: recipe.method, "),
        ("[recip]\nepochs = 3", r"recip: expected a known section, got 'recip'; did you mean recipe\?"),
        ("recipe = 3", r"recipe: expected a section \[recipe\], got 3"),
        ("[recipe]\nepochs = '3'", "recipe.epochs: expected an integer, got '3'"),
        ("[recipe]\nepochs = true", "recipe.epochs: expected an integer, got True"),
        ("[recipe]\nepochs = 3.0", "recipe.epochs: expected an integer, got 3.0"),
        ("[recipe]\nlearning_rate = 0", "recipe.learning_rate: expected a finite number > 0, got 0"),
        ("[recipe]\nlearning_rate = nan", "recipe.learning_rate: expected a finite number > 0, got nan"),
        ("[recipe]\nshrink_wrap_threshold = 2", "shrink_wrap_threshold: expected a finite number > 0 and <= 1, got 2"),
        ("[recipe]\nschedule = 'linear'", "recipe.schedule: expected one of 'cosine', 'plateau', 'constant', got"),
        ("[recipe]\nschedule = [[2.5, 0.1]]", r"recipe.schedule: expected .* or \(epoch, rate\) pairs"),
        ("[recipe]\nfree_fraction = 1", "recipe.free_fraction: expected a finite number >= 0 and < 1, got 1"),
        ("[recipe]\nfree_fraction = 'a'", "recipe.free_fraction: expected a real number, got 'a'"),
        ("[recipe]\namplitude_bound = 0", "amplitude_bound: expected a finite number > 0, got 0.0; false for none"),
        ("[recipe]\namplitude_bound = true", "amplitude_bound: expected a real number, got True; false for none"),
        ("[recipe]\nlikelihood = 'gauss'", "recipe.likelihood: expected one of 'amplitude', 'poisson', got 'gauss'"),
        ("[recipe]\ns_0 = 1", "recipe.s_0: expected one of 'tied', 'support', 'free', got 1"),
        ("[recipe]\nmethod = 'cg'", "recipe.method: expected one of 'adam', 'lbfgs', 'multiscale', 'solve', got 'cg'"),
        ("[recipe]\natv_p = 0.5", "recipe.atv_p: expected a finite number >= 1, got 0.5"),
        ("[recipe]\nrefine_angles = 1", "recipe.refine_angles: expected true or false, got 1"),
        ("[recipe]\nepochs = 0", "recipe.epochs: expected an integer >= 1, got 0"),
        ("[start]\ntrial_epochs = -1", "start.trial_epochs: expected an integer >= 0, got -1"),
        (
            "[data]\nformat = 'tiff'",
            "data.format: expected one of 'auto', 'array', 'eiger', 'id01', 'cxi', '34idc', got 'tiff'",
        ),
        ("[data]\ncrop = [128]", r"data.crop: expected a list of 2 items, got \[128\]"),
        ("[data]\ncrop = [128, 'a']", r"data.crop\[1\]: expected an integer, got 'a'"),
        ("[data]\ndark = 1", "data.dark: expected true or false, got 1"),
        ("[experiment]\nenergy_keV = -9", "experiment.energy_keV: expected a finite number > 0, got -9"),
        ("[experiment]\narm = [['q', 1.0]]", r"experiment.arm\[0\]: expected an axis such as 'y\+'"),
        ("[experiment]\nbeam_polarization = 'round'", "beam_polarization: expected 'horizontal'"),
        ("[crystal]\nchi_0 = 1e-5", r"crystal.chi_0: expected \[real, imaginary\], got 1e-05"),
        (
            "[crystal]\npolarization = {sigma = 0.1, pi = 0.1}",
            "crystal.polarization: expected fractions that sum to 1",
        ),
        ("[crystal]\npolarization = {s = 1.0}", "crystal.polarization: expected a dict of 'sigma' and 'pi' fractions"),
        ("[model]\nshape = [1, 2]", "model.shape: expected a list of 3 items"),
        ("[model]\ndtype = 'float32'", "model.dtype: expected one of 'complex64', 'complex128'"),
        ("[model\n", "config: expected TOML, got"),
    ],
)
def test_refusals_name_the_key(text, message):
    with pytest.raises(config.ConfigError, match=message):
        config.loads(text)


@pytest.mark.parametrize(
    "override, message",
    [
        ("recipe.epochs", "--set recipe.epochs: expected section.key=value"),
        ("epochs=3", "--set epochs=3: expected section.key=value"),
        ("recipe.epochs=x", "recipe.epochs: expected a TOML value, got 'x'; text needs quotes: 'recipe.epochs=\"x\"'"),
        ("recipe.epoch=3", "recipe.epoch: .*did you mean recipe.epochs?"),
        ("recip.epochs=3", "recip: expected a known section"),
        ("recipe.epochs=3\nseed=4", "expected section.key=value"),
    ],
)
def test_bad_overrides_are_named(override, message):
    with pytest.raises(config.ConfigError, match=message):
        config.loads("", [override])


def test_files_are_named_and_paths_start_at_the_file(tmp_path):
    path = tmp_path / "run.toml"
    with pytest.raises(config.ConfigError, match="run.toml: expected a TOML file, got"):
        config.load(path)
    path.write_text("[data\n")
    with pytest.raises(config.ConfigError, match="run.toml: expected TOML, got"):
        config.load(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(config.ConfigError, match="run.toml: expected a TOML file, got"):
        config.load(path)
    path.write_text('[data]\npath = "scan.cxi"')
    assert config.load(path).path("data.path") == tmp_path / "scan.cxi"
    with pytest.raises(config.ConfigError, match="start.path: expected a value, got none"):
        config.load(path).need("start.path")


def test_the_scan_is_read_masked_and_cropped(tmp_path):
    one = scan()
    io.write_scan(tmp_path / "scan.cxi", one.data, energy=one.energy, distance=0.6, pixel_size=50e-6, arm=one.arm,
                  rocking_angles=one.rocking_angles, centre=one.centre)  # fmt: skip
    np.save(tmp_path / "mask.npy", np.arange(12 * 14).reshape(12, 14) != 103)
    text = '[data]\npath = "scan.cxi"\nmask = "mask.npy"\nframes = [1, 3]\ncrop = [8, 8]\n'
    made = config.loads(text, folder=tmp_path)
    read = made.scan()
    assert read.data.shape == (3, 8, 8) and read.centre == (1.0, 4.25, 4.0) and read.data[1, 4, 4] == 10
    assert (~read.mask).sum() == 1 and not read.mask[103 // 14 - 2, 103 % 14 - 3]
    with pytest.raises(config.ConfigError, match=r"data.crop: expected at most"):
        config.loads(text, ["data.crop=[14, 8]"], tmp_path).scan()
    with pytest.raises(config.ConfigError, match=r"data.frames: expected 0 <= first"):
        config.loads(text, ["data.frames=[1, 9]"], tmp_path).scan()
    np.save(tmp_path / "mask.npy", np.ones((3, 3), bool))
    with pytest.raises(config.ConfigError, match=r"data.mask: expected shape"):
        made.scan()
    (tmp_path / "mask.npy").write_bytes(b"no")
    with pytest.raises(config.ConfigError, match=r"data.mask: expected a .npy or .npz"):
        made.scan()
    with pytest.raises(FileNotFoundError, match="none.cxi"):
        made.scan(tmp_path / "none.cxi")


def test_the_experiment_is_built_in_si_units():
    made = config.loads(TEXT).experiment()
    assert made.two_theta == pytest.approx(np.radians(34.316), abs=1e-5)  # arccos(cos delta cos gamma), five digits
    assert made.energy == pytest.approx(9000 * 1.602176634e-19, rel=1e-12) and made.distance == 0.5
    assert made.detector_shape == (16, 18) and made.n_frames == 7
    assert made.rocking_angles == pytest.approx(np.radians(0.005) * np.arange(-3, 4))


def test_the_scan_completes_the_experiment_and_the_config_wins():
    made = config.loads("[experiment]\ndistance_mm = 700").experiment(scan())
    assert made.distance == pytest.approx(0.7) and made.energy == pytest.approx(1.4e-15, rel=1e-12)
    assert made.detector_shape == (12, 14) and made.two_theta == pytest.approx(0.6) and made.centre == (2.0, 6.25, 7.0)
    assert (made.rocking_angles == scan().rocking_angles).all()
    made = config.loads("[experiment]\ntwo_theta_deg = 30\nrocking_angles_deg = [0, 1, 2, 3, 4]").experiment(scan())
    assert made.two_theta == pytest.approx(np.radians(30)) and made.rocking_angles[1] == pytest.approx(np.radians(1))


@pytest.mark.parametrize(
    "changes, with_scan, message",
    [
        (["experiment.two_theta_deg=30"], False, "experiment.two_theta_deg: expected this or experiment.arm, got both"),
        (["experiment.rocking_angles_deg=[0, 1]"], False, "experiment.rocking_angles_deg: expected 7 angles, got 2"),
        ([], True, r"experiment.detector_shape: expected \[12, 14\] as in the data, got \[16, 18\]"),
        (["experiment.detector_shape=[12, 14]"], True, "experiment.rocking_frames: expected 5 as in the data, got 7"),
        (['experiment.arm=[["y+", 100]]'], False, "experiment.arm: expected 0 < 2theta < 90 deg, got 100"),
    ],
)
def test_contradictions_name_the_key(changes, with_scan, message):
    with pytest.raises(config.ConfigError, match=message):
        config.loads(TEXT, changes).experiment(scan() if with_scan else None)


@pytest.mark.parametrize(
    "key", ["energy_keV", "distance_mm", "pixel_um", "detector_shape", "arm", "rocking_step_deg", "rocking_frames"]
)
def test_missing_keys_are_named(key):
    text = "\n".join(line for line in TEXT.splitlines() if not line.startswith(key))
    with pytest.raises(config.ConfigError, match=f"experiment.{key}: expected"):
        config.loads(text).experiment()


def test_a_crystal_comes_from_a_named_material_at_the_experiment_s_energy():
    pytest.importorskip("gemmi")
    material = TEXT.replace("chi_0 = [-7.4e-5, 6e-6]\nchi_h = [-6.1e-5, 6e-6]\n", 'material = "Au"\n')
    made = config.loads(material, ["crystal.lattice_nm=0.4078", "crystal.debye_waller_nm2=0.0063"])
    crystal = made.crystal(made.experiment())
    assert crystal.chi_0 == pytest.approx(-7.43e-5 + 6.1e-6j, rel=0.02) and crystal.name == "Au"
    bare = config.loads(material).crystal(made.experiment())
    assert 0.96 < abs(crystal.chi_h / bare.chi_h) < 0.98 and crystal.hkl == (1, 1, 1)  # B = 0.63 A^2 takes 2.8 %
    for override, message in (
        ("crystal.chi_0=[-7e-5, 6e-6]", "crystal.material: expected this or crystal.chi_0, got both"),
        ("crystal.hkl=[1, 0, 0]", "crystal.material: hkl"),
        ('crystal.material="Xy"', "crystal.material: material"),
    ):
        with pytest.raises(config.ConfigError, match=f"^{message}"):
            config.loads(material, [override]).crystal(made.experiment())
    with pytest.raises(config.ConfigError, match="^crystal.lattice_nm: expected crystal.material with it, got none"):
        config.loads(TEXT, ["crystal.lattice_nm=0.4"]).crystal()


def test_orientation_and_scheme_reach_the_model():
    made = config.loads(TEXT, ['experiment.orientation="symmetric"', "experiment.arm=[['y+', 100.0]]"])
    experiment = made.experiment()
    model = made.make_model(experiment, (3, 4, 5), made.voxel(experiment))
    assert experiment.orientation == model.operators[0][1].orientation == "symmetric"
    made = config.loads(TEXT, ['model.scheme="etd2rk"'])
    experiment = made.experiment()
    assert made.make_model(experiment, (3, 4, 5), made.voxel(experiment)).operators[0][1].scheme == "etd2rk"
    made = config.loads(TEXT, ["model.resync=7"])
    assert made.make_model(experiment, (3, 4, 5), made.voxel(experiment)).operators[0][1].resync == 7


def test_the_crystal_is_built_and_its_sign_checked():
    made = config.loads(TEXT).crystal()
    assert made.chi_0 == -7.4e-5 + 6e-6j and made.chi_hbar == made.chi_h and made.name == "Au" and made.hkl == (1, 1, 1)
    with pytest.raises(config.ConfigError, match="crystal.chi_h: expected a value, got none"):
        config.loads("[crystal]\nchi_0 = [0, 1e-6]").crystal()
    with pytest.raises(config.ConfigError, match="crystal.chi_0: expected Im chi_0 >= 0"):
        config.loads(TEXT, ["crystal.chi_0=[-7e-5, -6e-6]"]).crystal()


def test_the_config_of_the_measured_scan_is_valid():
    made = config.load(Path(__file__).parents[1] / "bench" / "34idc_scan54.toml")
    crystal = made.crystal()
    assert crystal.chi_0.imag > 0 and crystal.chi_0.real < crystal.chi_h.real < 0  # |f0(111)| < Z
    assert made.data.format == "34idc"


def test_the_recipe_is_the_algorithms_recipe():
    adam = "[recipe]\nmethod = 'adam'\n"
    made = config.loads(adam + "amplitude_bound = false\nbackground = 0.2\nlikelihood = 'poisson'")
    arguments = made.recipe_arguments()
    assert set(arguments) == set(MinibatchRecipe.names())
    assert arguments["amplitude_bound"] is None and arguments["background"] == 0.2
    arguments = config.loads(adam).recipe_arguments()
    assert MinibatchRecipe(**arguments) == MinibatchRecipe()  # nothing set: the defaults of the function
    arguments = config.loads("[recipe]\nmethod = 'lbfgs'").recipe_arguments()
    assert LbfgsRecipe(**arguments) == LbfgsRecipe()
    assert set(arguments) == set(LbfgsRecipe.names())
    assert config.loads("[recipe]\nmethod = 'lbfgs'\nepochs = 7").recipe_arguments()["iterations"] == 7


def test_a_new_method_brings_its_keys_with_its_line(monkeypatch):
    @dataclasses.dataclass(frozen=True)
    class HeavyBall(MinibatchRecipe):
        momentum: float = option(0.7, number(at_least=0, below=1), "of the ball.")

    monkeypatch.setitem(METHODS, "heavy ball", Method(lambda *_, **__: None, HeavyBall))
    further = [name for name in NuisanceRecipe.names() if name not in MinibatchRecipe.names()]
    assert {item.name for item in recipe_fields()} == {
        *MinibatchRecipe.names(),
        *further,
        "memory",
        "restart_every",
        "momentum",
    }
    made = config.loads("[recipe]\nepochs = 7")
    made.recipe.method, made.recipe.momentum = "heavy ball", 0.8  # as with the schema made of these fields
    made.given.add("recipe.momentum")
    options = made.recipe_arguments()
    assert options["epochs"] == 7 and options["momentum"] == 0.8 and set(options) == set(HeavyBall.names())


@pytest.mark.parametrize("name", METHODS)
def test_a_method_takes_its_options(name):
    method = METHODS[name]
    options = config.loads(f"[recipe]\nmethod = '{name}'").recipe_arguments()
    assert {*options, "checkpoint", "resume", "progress"} <= set(inspect.signature(method.function).parameters)
    assert set(method.own_starts) <= set(STARTS)


@pytest.mark.parametrize("section", SCHEMA)
def test_the_defaults_pass_their_own_checks(section):
    for name, key in SCHEMA[section].items():
        if key.default is not None:
            assert key.check(name, key.default) == key.default, name


def test_the_listing_is_a_configuration_of_the_defaults():
    listed = schema.listing()
    text = re.sub(r"(?m)^#(\w+ = .+)$", r"\1", listed)  # what has a default, uncommented
    made, default = config.loads(text), config.loads("")
    for section, keys in SCHEMA.items():
        assert vars(made.section(section)) == vars(default.section(section))
        assert all(f"#{name} =" in listed for name in keys)
    assert max(map(len, listed.splitlines())) <= 100


@pytest.mark.parametrize(
    "text, message",
    [
        ("method = 'lbfgs'\nphase_only_epochs = 3", "recipe.phase_only_epochs: expected none with recipe.method"),
    ],
)
def test_contradictions_in_the_recipe_name_the_key(text, message):
    with pytest.raises(config.ConfigError, match=message):
        config.loads("[recipe]\n" + text).recipe_arguments()


def test_keys_without_a_use_are_told():
    made = config.loads("[recipe]\nmethod = 'lbfgs'\nbatches = 3\nseed = 4\nshrink_wrap_every = 5")
    with pytest.warns(UserWarning, match="^recipe.batches, recipe.shrink_wrap_every: not used by recipe.method"):
        assert made.recipe_arguments()["seed"] == 4


def test_multiscale_has_a_section_of_its_own():
    text = "[recipe]\nmethod = 'multiscale'\nlikelihood = 'poisson'\nseed = 3\n[multiscale]\nsteps = 7\nplaces = true\n"
    arguments = config.loads(text).recipe_arguments()
    assert MultiscaleRecipe(**arguments) == MultiscaleRecipe(steps=7, places=True, counts=True, seed=3)
    assert config.loads(text, ["multiscale.places=false"]).recipe_arguments()["places"] is False
    defaults = config.loads("[recipe]\nmethod = 'multiscale'").recipe_arguments()
    assert MultiscaleRecipe(**defaults) == MultiscaleRecipe()
    weighted = config.loads(text, ["recipe.atv_weight=0.01"]).recipe_arguments()
    assert weighted["atv_weight"] == 0.01 and "amplitude_bound" not in weighted
    with pytest.warns(UserWarning, match="^recipe.epochs: not used by recipe.method = 'multiscale'"):
        config.loads(text, ["recipe.epochs=3"]).recipe_arguments()
    with pytest.warns(UserWarning, match="^multiscale.steps: only used by recipe.method = 'multiscale'"):
        config.loads("[multiscale]\nsteps = 7").recipe_arguments()


def test_solve_has_a_section_of_its_own():
    text = "[recipe]\nseed = 3\natv_weight = 0.01\n[solve]\nsteps = 7\nfine_rounds = 1\n"
    arguments = config.loads(text).recipe_arguments()
    assert arguments.pop("atv_weight") == 0.01 and arguments.pop("counts") == "auto"
    assert SolveRecipe(**arguments) == SolveRecipe(steps=7, fine_rounds=1, seed=3)
    for likelihood, counts in (("poisson", True), ("amplitude", False)):
        told = config.loads(text, [f'recipe.likelihood="{likelihood}"']).recipe_arguments()
        assert told["counts"] is counts
    with pytest.warns(UserWarning, match="^recipe.epochs: not used by recipe.method = 'solve'"):
        config.loads(text, ["recipe.epochs=3"]).recipe_arguments()
    with pytest.warns(UserWarning, match="^solve.fine_rounds, solve.steps: only used by recipe.method = 'solve'"):
        config.loads(text, ["recipe.method='adam'"]).recipe_arguments()


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Disturbances)])
def test_disturbances_are_keys(name):
    if name in ("photons", "seed"):  # of [simulate]
        assert name not in SCHEMA["disturbances"] and name in SCHEMA["simulate"]
    else:
        assert SCHEMA["disturbances"][name].default == getattr(Disturbances, name)
