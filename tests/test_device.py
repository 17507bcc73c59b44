"""The model on a device is the model on the CPU: same frames, losses and gradients, and no array crosses over unasked.

Emulated (standin.py) and, marked gpu, on a GPU.
"""

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pendel.model.passes
import pytest
from pendel import Coherence, Model, Nuisance, atv
from pendel.fit.adam import Adam
from pendel.kinematic.support import recentre, shrink_wrap
from pendel.model.loss import Compared, Likelihood
from pendel.operator.far_field import FarField
from scan import FRAMES, SHAPE, STRONG, evaluate, make_crystal, make_data, make_model

MIXED = {"sigma": 0.3, "pi": 0.7}
BEAM = {"point_spread": (0.7, 0.4), "coherence": Coherence(40e-9, 60e-9, 1e-3, modes=3)}


def close(value, expected, relative, tolerance):
    """Assert that an array on the device is that of the CPU."""
    value = value.get()
    if not np.any(expected):
        assert not np.any(value)
    else:
        assert relative(value, expected) < tolerance


def there(device, **arrays):
    return {name: None if a is None else device.cupy.asarray(a) for name, a in arrays.items()}


# polarisation and coupling; likelihood; what else is given
CASES = {
    "plain": ({}, {}, {}),
    "mask, support, best scale": ({"polarization": MIXED}, {"scale": None}, {"mask", "support"}),
    "kinematic, first mask for all": ({"coupling": "kinematic"}, {"scale": None}, {"mask of one frame", "s_0"}),
    "fourier, offsets, flux": ({"transport": "fourier"}, {"scale": None, "frames": [5, 1, 6]}, {"dq", "flux"}),
    "etd2rk, with cuFFT": ({"scheme": "etd2rk", "transport": "fourier"}, {}, {"s_0"}),
    "poisson": ({}, {"scale": 1e5, "likelihood": "poisson", "background": 0.2}, {"mask", "free", "s_0"}),
    "poisson, best scale": ({}, {"scale": None, "likelihood": "poisson"}, {"mask"}),
    "poisson, Newton's scale": (
        {"polarization": MIXED, "coupling": "kinematic"},
        {"scale": None, "likelihood": "poisson", "background": 0.2},
        {"mask", "free", "flux"},
    ),
    "blur, backgrounds, weights": (BEAM, {"scale": 1e5}, {"background", "weights", "nuisance", "flux", "mask"}),
    "blur, backgrounds, weights, best scale": (
        BEAM | {"coupling": "kinematic"},
        {"scale": None, "likelihood": "poisson"},
        {"background", "weights", "nuisance", "free"},
    ),
    "amplitudes beside a background, best scale": ({}, {"scale": None, "background": 0.2}, {"nuisance"}),
}


@pytest.mark.parametrize("dtype", ["complex64", "complex128"])
@pytest.mark.parametrize("name", CASES)
def test_evaluation_is_that_of_the_cpu(device, rng, relative, tolerance, name, dtype):
    change, options, given = CASES[name]
    cpu, there_model = make_model(dtype, **change), make_model(dtype, device="cuda", **change)
    S, data = make_crystal(rng).astype(dtype), make_data(rng)
    good = rng.random(data.shape) > 0.2
    possible = {
        "mask": good,
        "support": S != 0,
        "free": rng.random(data.shape) < 0.1,
        "s_0": rng.uniform(0, 1, SHAPE),
        "dq": cpu.experiment.dq + 1e5,
        "flux": rng.uniform(0.8, 1.2, FRAMES),
        "weights": rng.uniform(0.1, 1, data.shape),
        "background": rng.uniform(0, 2, FRAMES),
    }
    arrays = {key: value for key, value in possible.items() if key in given}
    if "mask of one frame" in given:
        arrays["mask"] = good[0]
    wanted = Nuisance(gradients=("flux", "background", "blur") if "nuisance" in given else ())
    levels = rng.uniform(0, 1, FRAMES) if "nuisance" in given else None
    expected = evaluate(cpu, S, data, **arrays, **options, nuisance=wanted._replace(background=levels))
    device.unharmed()
    xp = device.cupy
    options = options | {"nuisance": wanted._replace(**there(device, background=levels))}
    found = evaluate(there_model, xp.asarray(S), xp.asarray(data), **there(device, **arrays), **options)
    assert device.unharmed(), "a kernel wrote outside its arrays"
    for field, value, wanted in zip(found._fields, found, expected, strict=True):
        if field == "scale" and options.get("scale", 1.0) is not None or wanted is None:
            assert value == wanted, field
        else:
            close(value, wanted, relative, tolerance[dtype])


@pytest.mark.parametrize("polarization", [None, MIXED])
def test_frames_and_misfit_are_those_of_the_cpu(device, rng, relative, tolerance, polarization):
    cpu, model = make_model(polarization=polarization), make_model(polarization=polarization, device="cuda")
    S, data, flux = make_crystal(rng), make_data(rng), rng.uniform(0.8, 1.2, FRAMES)
    xp = device.cupy
    frames = model.intensities(xp.asarray(S), [4, 0, 7], flux=xp.asarray(flux))
    assert isinstance(frames, xp.ndarray)
    close(frames, cpu.intensities(S, [4, 0, 7], flux=flux), relative, tolerance["complex128"])
    misfit = model.misfit(xp.asarray(S), xp.asarray(data))
    assert isinstance(misfit, float) and misfit == pytest.approx(cpu.misfit(S, data), rel=1e-11)
    loss, adj_S = model.loss_and_adjoint(xp.asarray(S), xp.asarray(data), scale=1e5)
    expected = cpu.loss_and_adjoint(S, data, scale=1e5)
    close(loss, expected[0], relative, tolerance["complex128"])
    close(adj_S, expected[1], relative, tolerance["complex128"])


@pytest.mark.parametrize("scale", [None, 1e5])
def test_blocks_change_memory_and_not_the_result(device, rng, relative, monkeypatch, scale):
    model, xp = make_model(device="cuda"), device.cupy
    S, data = xp.asarray(make_crystal(rng)), xp.asarray(make_data(rng))
    options = {"likelihood": "poisson", "background": 0.2, "scale": scale}
    whole = evaluate(model, S, data, **options)
    monkeypatch.setattr(pendel.model.passes, "DEVICE_BLOCK_BYTES", 1)
    monkeypatch.setattr(model.far_field, "chunk", 1)
    assert len(model.passes.blocks(FRAMES)) == FRAMES
    single = evaluate(model, S, data, **options)
    # the gradients of the blocks are added up
    for field in ("loss", "adj_S", "adj_dq", "misfit_numerator"):
        close(getattr(single, field), getattr(whole, field).get(), relative, 1e-12)


@pytest.mark.parametrize("roll", [0, 19, 70.8, 160.8, -120])
def test_far_field_is_that_of_the_cpu(device, rng, relative, tolerance, roll):
    engine, xp = make_model(device="cuda").operators[0][1].engine, device.cupy
    given = ((12, 9), (40, 42), (18, 20), np.deg2rad(roll), roll > 0, (0.3, -1.7))
    cpu, far_field = FarField(*given, dtype="complex128"), FarField(*given, dtype="complex128", engine=engine)
    E_h, adj_F = (rng.normal(size=(5, *n)) + 1j * rng.normal(size=(5, *n)) for n in ((12, 9), (18, 20)))
    close(far_field.forward(xp.asarray(E_h)), cpu.forward(E_h), relative, tolerance["complex128"])
    close(far_field.adjoint(xp.asarray(adj_F)), cpu.adjoint(adj_F), relative, tolerance["complex128"])
    with pytest.raises(TypeError, match="^E_h: expected a CuPy array for device 'cuda', got ndarray"):
        far_field.forward(E_h)


@pytest.mark.parametrize("exponents", [(2.0, 1.0), (1.0, 1.0), (1.5, 0.7), (2.0, 2.0)])
@pytest.mark.parametrize("inside", [False, True])
def test_total_variation_is_that_of_the_cpu(device, rng, relative, exponents, inside):
    S, xp = make_crystal(rng), device.cupy
    support = rng.random(SHAPE) < 0.7 if inside else None
    p, q = exponents
    value, adj_S = atv(S, 3.0, p=p, q=q, support=support)
    found = atv(xp.asarray(S), 3.0, p=p, q=q, support=None if support is None else xp.asarray(support))
    close(found[0], value, relative, 1e-12)
    close(found[1], adj_S, relative, 1e-12)
    nothing = atv(xp.asarray(S), 3.0, support=xp.zeros(SHAPE, bool))
    assert float(nothing[0]) == 0 and not np.any(nothing[1].get())
    with pytest.raises(TypeError, match="^support: expected a CuPy array, as S is, got ndarray"):
        atv(xp.asarray(S), support=np.ones(SHAPE, bool))


@pytest.mark.parametrize("options", [{}, {"sigma": 0}, {"reference": 0.9, "periodic": True, "threshold": 0.5}])
def test_support_and_place_are_those_of_the_cpu(device, rng, options):
    xp, S = device.cupy, np.zeros((12, 13, 14), complex)
    S[1:6, 2:9, 3:9] = make_crystal(rng, (5, 7, 6))
    S[3, 5, 5:7] = 0  # a hole
    S[10:, 11:, 12:] = 1  # and a second piece
    support = shrink_wrap(S, **options)
    found = shrink_wrap(xp.asarray(S), **options)
    assert np.array_equal(found.get(), support) and support.any()
    moved, others, shift = recentre(S, support)
    at = recentre(xp.asarray(S), xp.asarray(support))
    assert at[2] == shift and shift != (0, 0, 0)
    assert np.array_equal(at[0].get(), moved) and np.array_equal(at[1].get(), others)
    assert recentre(xp.zeros((3, 4, 5)))[1] == (0, 0, 0) and not shrink_wrap(xp.zeros((3, 4, 5))).get().any()


def test_adam_takes_the_steps_of_the_cpu(device, rng, relative):
    xp = device.cupy
    cpu, adam = Adam.zeros(SHAPE, "complex128"), Adam.zeros(SHAPE, "complex128", xp)
    for _ in range(3):
        gradient = make_crystal(rng)
        close(adam.direction(xp.asarray(gradient)), cpu.direction(gradient), relative, 1e-13)


def test_where_the_cpu_raises_the_device_gives_nan(device, rng):
    model, xp = make_model(device="cuda"), device.cupy
    S, data = xp.asarray(make_crystal(rng)), make_data(rng).astype(float)
    data[3, 4, 5] = -1
    assert np.isnan(float(evaluate(model, S, xp.asarray(data), scale=1e5).loss))
    assert np.isnan(float(evaluate(model, xp.zeros_like(S), xp.asarray(abs(data)), scale=None).loss))
    explained = Likelihood("poisson", 5.0)
    D, weight = xp.ones((1, 2, 2)), xp.ones(1)
    compared = Compared(D, D, None, weight, 5.0)
    sums = (weight @ s for s in explained.sums(compared))
    assert np.isnan(float(explained.scale(*sums, [compared])))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("share", [1e-3, 0.5, 0.9])
@pytest.mark.parametrize("name", ["amplitude", "poisson"])
def test_the_best_scale_beside_a_background_is_that_of_the_cpu(device, rng, dtype, share, name):
    xp, D = device.cupy, rng.exponential(size=(3, 40, 50))
    background = 20.0
    I = rng.poisson(background + background * (1 / share - 1) * D)  # noqa: E741
    likelihood = Likelihood(name, background)
    here = D.astype(dtype), np.sqrt(I).astype(dtype), None, np.ones(3)

    def best(compared):
        return likelihood.scale(*(compared.weight @ s for s in likelihood.sums(compared)), [compared])

    expected = best(Compared(*here, background))
    found = best(Compared(*(None if a is None else xp.asarray(a) for a in here), background))
    # the left side of (6) is a difference of sums 1/(1 - share) times as large
    assert float(found) == pytest.approx(expected, rel=float(10 * np.finfo(dtype).eps / (1 - share)))


def refuses(kind, message, call):
    with pytest.raises(kind, match=message):
        call()


def test_arrays_of_the_other_device_are_refused_and_told_how_to_convert(device, rng):
    cpu, model, xp = make_model(), make_model(device="cuda"), device.cupy
    host_S, host_data = make_crystal(rng), make_data(rng)
    S, data = xp.asarray(host_S), xp.asarray(host_data)
    text = "expected a CuPy array for device 'cuda', got ndarray of shape .*; convert it with cupy.asarray"
    refuses(TypeError, "^S: " + text, lambda: model.intensities(host_S))
    refuses(TypeError, "^S: " + text, lambda: evaluate(model, host_S, data))
    refuses(TypeError, "^data: " + text, lambda: evaluate(model, S, host_data))
    refuses(TypeError, "^data: " + text, lambda: model.misfit(S, host_data))
    for name, value in (
        ("mask", host_data > 0),
        ("free", host_data > 0),
        ("support", host_S != 0),
        ("s_0", abs(host_S)),
        ("dq", cpu.experiment.dq),
        ("flux", np.ones(FRAMES)),
    ):
        refuses(TypeError, f"^{name}: " + text, lambda n=name, v=value: evaluate(model, S, data, **{n: v}))
    text = r"expected a NumPy array for device 'cpu', got .*; convert it with .get\(\)"
    refuses(TypeError, "^S: " + text, lambda: evaluate(cpu, S, host_data))
    refuses(TypeError, "^data: " + text, lambda: evaluate(cpu, host_S, data))
    refuses(TypeError, "^frames: expected indices on the host", lambda: model.intensities(S, xp.arange(2)))
    refuses(ValueError, r"^data: expected shape \(frames, rows, cols\)", lambda: evaluate(model, S, data[:2]))
    refuses(TypeError, "^mask: expected dtype bool", lambda: evaluate(model, S, data, data))
    assert "device='cuda'" in repr(model) and "device" not in repr(cpu)


def test_without_a_device_the_model_says_why():
    if pendel.cuda_available():
        pytest.skip("there is a device")
    experiment = make_model().experiment
    given = experiment, STRONG, SHAPE, experiment.suggest_voxel()
    refuses(
        RuntimeError,
        "^device: expected a CUDA device that can be used, got none: ",
        lambda: Model(*given, device="cuda"),
    )


def test_importing_pendel_does_not_import_cupy(tmp_path):
    (tmp_path / "cupy.py").write_text("raise SystemExit('cupy was imported')")
    path = os.pathsep.join([str(tmp_path), str(Path(pendel.__file__).parents[1])])
    code = "import pendel, pendel.app.cli, sys; assert 'cupy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": path}, check=True)


def test_the_stand_in_has_nothing_that_cupy_has_not(built):
    if subprocess.run([sys.executable, "-c", "import cupy"], capture_output=True).returncode:
        pytest.skip("NO CuPy HERE: THE STAND-IN WAS NOT COMPARED WITH IT")
    from standin import Standin

    given = {}
    for module, functions in Standin(built).modules.items():
        for name, function in vars(functions).items():
            if module.startswith("cupy") and inspect.isfunction(function):
                given[f"{module}.{name}"] = list(inspect.signature(function).parameters)
    methods = [name for name in vars(sys.modules["standin"].ndarray) if name not in ("_bare", "__module__")]
    code = f"""
import importlib, inspect, json, cupy
import cupyx.scipy.fft, cupyx.scipy.ndimage, cupyx.scipy.special
missing = [m for m in {methods!r} if not hasattr(cupy.ndarray, m)]
assert not missing, missing
for name, parameters in json.loads({json.dumps(json.dumps(given))}).items():
    module, _, function = name.rpartition(".")
    function = getattr(importlib.import_module(module), function)
    if isinstance(function, cupy.ufunc):
        assert parameters in (["args", "out", "casting", "dtype"], ["x", "y"]), name
    else:
        assert list(inspect.signature(function).parameters) == parameters, (name, parameters)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
