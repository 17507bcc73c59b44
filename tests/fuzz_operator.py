"""Calls of the operator, the far field, the filter and the model, seeded, and what they must not do.

Run it for a long search: ``python tests/fuzz_operator.py --count 100000 --seed 0``. A call ends in finite numbers, the
same to the last bit for any number of threads and any layout of its arrays, or in an error that names the argument; now
and then the adjoint is held against its operator. Calls run in a process that is watched: a crash and a hang are seen,
and the next seed is tried all the same. Under a sanitizer: ``tests/sanitize.sh``.
"""

import argparse
import inspect
import json
import math
import os
import re
import subprocess
import sys
import threading
import time
import traceback
import warnings

import numpy as np
from fuzz_arrays import NASTY, SHAPES, given, one, values

LONGEST = float(os.environ.get("PENDEL_FUZZ_LONGEST", 5))  # s of a processor for one seed
PATIENCE = 20 * LONGEST  # s: what has not ended then waits for something
REFUSALS = (ValueError, TypeError, RuntimeError, MemoryError)


class Wrong(Exception):
    """What a call did that it must not."""


def a_shape(rng):
    return tuple(int(one(rng, (1, 1, 2, 3, 4, 5, 7, 8, 9, 11, 12))) for _ in range(3))


def refused(names, function, *args, **kwargs):
    """(result, None), or (None, the error), where that names an argument as it must; any other error goes on."""
    try:
        with np.errstate(all="ignore"):
            return function(*args, **kwargs), None
    except REFUSALS as error:
        named = re.match(r"([A-Za-z_]\w*)(\[\d+\])*: ", str(error))
        if not named or named[1] not in names:
            raise Wrong(f"names no argument: {error!r}") from error
        return None, error


def names_of(*functions):
    return {name for function in functions for name in inspect.signature(function).parameters}


# ---- what must hold


def bits(result):
    """All arrays of a result as bytes."""
    parts = result if isinstance(result, tuple) else (result,)
    return [None if part is None else np.asarray(part).tobytes() for part in parts]


def contents(arrays):
    """The bytes of arguments that are arrays, those left out that only look as large."""
    kept = {name: a for name, a in arrays.items() if isinstance(a, np.ndarray) and a.size < 1e6}
    return {name: np.asarray(a).tobytes() for name, a in kept.items() if not a.dtype.hasobject}


def expect_finite(what, result):
    parts = result if isinstance(result, tuple) else (result,)
    for part in parts:
        if part is not None and not np.isfinite(part).all():
            raise Wrong(f"{what}: NaN or infinity")


def expect_same(what, one_result, other):
    if bits(one_result) != bits(other):
        raise Wrong(f"{what}: other bits")


def product(a, b):
    """Re sum conj(a) b in double precision, and what it can be at most."""
    a, b = np.asarray(a, complex).ravel(), np.asarray(b, complex).ravel()
    with np.errstate(all="ignore"):
        return float(np.vdot(a, b).real), float(np.abs(a).max(initial=0) * np.abs(b).max(initial=0) * a.size)


def denormal(a, b, single):
    """What a product can lose where one factor is so small that it has lost its digits, or is 0 for that."""
    smallest = np.finfo(np.float32 if single else np.float64).smallest_normal
    return sum(float(smallest * np.abs(np.asarray(x, complex)).max(initial=0) * np.size(x)) for x in (a, b))


def expect_adjoint(what, there, back, single):
    """``there``, ``back``: (adj_y, A x) and (A^H adj_y, x)."""
    (left, most), (right, also) = product(*there), product(*back)
    relative, least = (1e-3, 1e-30) if single else (1e-9, 1e-290)
    allowed = relative * (most + also) + least + denormal(*there, single) + denormal(*back, single)
    if max(most, also) < 1e290 and not abs(left - right) <= allowed:
        raise Wrong(f"{what}: adjoint identity, {left} and {right}, at most {most}")


# ---- the operator


def operator_arguments(rng):
    orientation = one(rng, ("k_h", "symmetric"))
    two_theta = float(rng.uniform(0.01, 1.56 if orientation == "k_h" else 3.1))
    pixels = one(rng, (1, 1, 1, 2, 3, float(rng.uniform(0.05, 4)), 10.0 ** rng.uniform(-3, 1.7)))
    dx = 10.0 ** rng.uniform(-9.5, -7.5)
    dz = pixels * dx / math.tan(two_theta if orientation == "k_h" else two_theta / 2)
    strength = 10.0 ** rng.uniform(-7, -3)

    def chi():
        return complex(*(strength * rng.normal(size=2)))

    chi_0 = chi()
    made = {
        "shape": a_shape(rng),
        "voxel": (dz, dx * float(rng.uniform(0.5, 2)), dx),
        "wavelength": 10.0 ** rng.uniform(-10.5, -9.2),
        "two_theta": two_theta,
        "chi_0": one(rng, (complex(chi_0.real, abs(chi_0.imag)), complex(chi_0.real, abs(chi_0.imag)), 0)),
        "chi_h": chi(),
        "chi_hbar": one(rng, (None, 0, chi())),
        "polarization_factor": float(rng.uniform(-1, 1)),
        "scheme": one(rng, ("strang", "strang", "strang", "etd2rk")),
        "transport": one(rng, ("auto", "auto", "shift", "box", "fourier")),
        "dtype": one(rng, ("complex64", "complex128")),
        "threads": int(rng.integers(1, 3)),
        "orientation": orientation,
        "resync": one(rng, (None, None, 1, 2, 3, 5, 100)),
    }
    if made["scheme"] == "etd2rk" and rng.random() < 0.9:  # what does not go together is refused
        made |= {"orientation": "k_h", "two_theta": min(two_theta, 1.5), "transport": "fourier", "resync": None}
    fits = {"shift": isinstance(pixels, int), "box": pixels <= 1.5 and orientation == "k_h"}
    if not fits.get(made["transport"], True) and rng.random() < 0.9:
        made["transport"] = "auto"
    if rng.random() < 0.25:
        name = one(rng, list(made))
        made[name] = one(rng, SHAPES) if name == "shape" and rng.random() < 0.7 else one(rng, NASTY)
    if rng.random() < 0.03:
        made["voxel"] = tuple(10.0 ** rng.uniform(-13, -4, 3))
    return made


def sweep_arrays(rng, op):
    """{name: array} for `forward`, and adj_E_h and support for `adjoint`."""
    shape = op.shape if math.prod(op.shape) < 1e5 else (2, 3, 4)
    frames = one(rng, (0, *(1, 2, 3, 5, 8, 9, 16, 17, 33) * 3))
    E_h = (frames, shape[1], op.exit_shape[1] if shape == op.shape else 4)
    S = values(rng, shape, op.dtype)
    return {
        "S": S,
        "dq": values(rng, (frames, 3), float, 10.0 ** rng.uniform(3, 9)),
        "s_0": one(rng, (None, np.abs(S), values(rng, shape, op.real_dtype))),
        "incident": one(rng, (None, values(rng, shape[1:], op.dtype))),
    }, {"adj_E_h": values(rng, E_h, op.dtype), "support": one(rng, (None, rng.random(shape) < 0.5))}


def plain(op, arrays):
    """As the operator takes them, C-contiguous and of its dtype."""
    dtypes = {"dq": np.float64, "s_0": op.real_dtype, "support": bool}
    kinds = {name: dtypes.get(name, op.dtype) for name in arrays}
    return {name: None if a is None else np.array(a, kinds[name], order="C") for name, a in arrays.items()}


def operator_case(rng):
    from pendel import TakagiTaupin

    arguments = operator_arguments(rng)
    op, error = refused(names_of(TakagiTaupin), TakagiTaupin, **arguments)
    if error:
        return
    arrays, backward = sweep_arrays(rng, op)
    arrays, backward = given(rng, arrays), given(rng, backward)
    before = contents(arrays | backward)
    kept = bool(rng.integers(2))
    result, error = refused(names_of(op.forward), op.forward, **arrays, return_E_0=True, return_state=kept)
    if not error:
        operator_result(rng, op, arguments, (arrays, backward), result)
    if contents(arrays | backward) != before:
        raise Wrong("arguments: changed")


def operator_result(rng, op, arguments, given_arrays, result):
    from pendel import TakagiTaupin

    arrays, backward = given_arrays
    E_h, E_0, *state = result
    state = state[0] if state else None
    expect_finite("forward", (E_h, E_0))

    other = TakagiTaupin(**arguments | {"threads": 3 if op.threads != 3 else 1})
    simple = plain(op, arrays)
    expect_same("forward", (E_h, E_0), other.forward(**simple, return_E_0=True))
    adjoint_case(rng, (op, other), arrays, backward, state, E_h)


def adjoint_case(rng, operators, arrays, backward, state, E_h):
    op, other = operators
    found, error = refused({*names_of(op.adjoint), "adjoint"}, op.adjoint, **arrays, **backward, state=state)
    if error:
        return
    expect_finite("adjoint", found)
    simple = plain(op, arrays | backward)
    expect_same("adjoint", found, other.adjoint(**simple))
    if backward["support"] is not None and found.S[~simple["support"]].any():
        raise Wrong("adjoint: a gradient outside of the support")

    single, incident = op.dtype == np.complex64, simple["incident"]
    adj_E_h = simple["adj_E_h"]
    # beyond, and with gain where s_0 < 0, rounding grows by as much as the fields do
    usual = [simple[name] is None or np.abs(simple[name]).max() < 10 for name in ("S", "s_0", "incident")]
    if incident is not None and all(usual):
        expect_adjoint("incident", (adj_E_h, E_h), (found.incident, incident), single)
    if not single and rng.random() < 0.2:
        differences(rng, op, simple, found)


def differences(rng, op, simple, found):
    """The gradient of S along a direction against central differences, where these are good for anything."""
    S, adj_E_h = simple["S"], simple["adj_E_h"]
    s_0 = np.abs(S) if simple["s_0"] is None else simple["s_0"]
    if not 0.1 < np.abs(S).min() <= np.abs(S).max() < 10 or np.abs(adj_E_h).max() > 1e3 or np.abs(s_0).max() > 10:
        return
    wanted = 1 if simple["support"] is None else simple["support"]
    along = (rng.normal(size=S.shape) + 1j * rng.normal(size=S.shape)) * wanted
    forward = {name: value for name, value in simple.items() if name not in ("adj_E_h", "support", "S")}
    step = 1e-5
    up, down = (op.forward(S=S + sign * step * along, **forward) for sign in (1, -1))
    left, most = product(adj_E_h, (up - down) / (2 * step))
    right, also = product(found.S, along)
    rounding = 1e-9 * np.linalg.norm(adj_E_h) * np.abs(up).max(initial=0) * math.sqrt(up.size) + 1e-290
    if not abs(left - right) <= 1e-4 * (most + also) + rounding:
        raise Wrong(f"S: gradient {right}, central difference {left}, at most {most}")


# ---- the filter, the far field, the model


def filter_case(rng):
    """What takes only arrays that are checked: aligned, contiguous, of one precision."""
    from pendel.operator.cpu_engine import Cpu

    engine, dtype = Cpu(), one(rng, ("complex64", "complex128"))
    shape, reach = a_shape(rng), int(rng.integers(0, 7))
    real = np.dtype(dtype).type(0).real.dtype
    S, x, y = (rng.normal(size=shape) * (rng.random(shape) < 0.7) + 1j * rng.normal(size=shape) for _ in range(3))
    S, x, y = ((a * (rng.random(shape) < 0.8)).astype(dtype) for a in (S, x, y))
    taps = [(rng.normal(size=(shape[0], 2 * reach + 1)) * (1 + 1j)).astype(dtype) for _ in range(2)]
    wanted = one(rng, (None, rng.random(shape) < 0.4, np.zeros(shape, bool), np.ones(shape, bool)))

    size, filled = engine.extent(S, threads=1)
    expect_same("extent", (size, filled), engine.extent(S, threads=2))
    if not np.allclose(size, np.abs(S), rtol=1e-5) or not np.array_equal(filled, S != 0):
        raise Wrong("extent: not |S|")
    made = engine.filter(x, *taps, wanted, threads=1)
    expect_same("filter", made, engine.filter(x, *taps, wanted, threads=2))
    kept = y if wanted is None else (y * wanted).astype(dtype)
    back = engine.filter(kept, *(np.ascontiguousarray(t[:, ::-1].conj()) for t in taps), threads=1)
    expect_adjoint("filter", (y, made), (back, x), dtype == "complex64")
    with_size = engine.filter(x, *taps, wanted, S=S, adj_size=np.ones(shape, real), threads=2)
    expect_finite("filter", (size, made, back, with_size))


def far_field_case(rng):
    from pendel.operator.far_field import FarField

    def two(*most):
        return tuple(int(rng.integers(1, n + 1)) for n in most)

    far = one(rng, ((16, 16), (18, 24), (30, 20), (7, 9)))
    arguments = {
        "shape": two(*far),
        "far_shape": far,
        "detector_shape": two(min(far), min(far)),
        "roll": one(rng, (0.0, math.pi / 2, math.pi, float(rng.uniform(-4, 4)))),
        "flip_rows": bool(rng.integers(2)),
        "centre_offset": tuple(rng.uniform(-3, 3, 2).tolist()),
        "dtype": one(rng, ("complex64", "complex128")),
        "workers": int(rng.integers(1, 3)),
    }
    if rng.random() < 0.25:
        arguments[one(rng, list(arguments))] = one(rng, NASTY)
    far_field, error = refused(names_of(FarField), FarField, **arguments)
    if error:
        return
    frames = int(rng.integers(0, 10))
    E_h = values(rng, (frames, *far_field.shape), far_field.dtype)
    adj_F = values(rng, (frames, *far_field.detector_shape), far_field.dtype)
    strange = given(rng, {"E_h": E_h, "adj_F": adj_F})
    F, no_F = refused({"E_h"}, far_field.forward, strange["E_h"])
    back, no_back = refused({"adj_F"}, far_field.adjoint, strange["adj_F"])
    for name, result in (("forward", F), ("adjoint", back)):
        expect_finite(f"far field, {name}", result)
    if no_F or no_back or F.shape != adj_F.shape or back.shape != E_h.shape:
        return
    E_h, adj_F = (np.array(strange[name], far_field.dtype, order="C") for name in ("E_h", "adj_F"))
    other = FarField(**arguments | {"workers": 3})
    expect_same("far field", (F, back), (other.forward(E_h), other.adjoint(adj_F)))
    if max(np.abs(E_h).max(initial=0), np.abs(adj_F).max(initial=0)) < 1e15:
        expect_adjoint("far field", (adj_F, F), (back, E_h), far_field.dtype == np.complex64)


def model_arguments(rng):
    from pendel import Crystal, Experiment

    frames, rows = int(rng.integers(1, 8)), int(rng.integers(6, 14))
    orientation = one(rng, ("k_h", "k_h", "symmetric"))
    pixel, wavelength, two_theta = 55e-6, 1.5498e-10, float(rng.uniform(0.1, 1.3))
    field_of_view = 10.0 ** rng.uniform(-7, -6)
    experiment = Experiment(
        wavelength=wavelength,
        distance=field_of_view * pixel / wavelength,
        pixel_size=pixel,
        detector_shape=(rows, int(rng.integers(6, 14))),
        arm=(("y+", two_theta), *one(rng, ((), (("x-", 0.2),)))),
        rocking_angles=1e-4 * (np.arange(frames) - frames // 2),
        orientation=orientation,
    )
    return {
        "experiment": experiment,
        "crystal": Crystal(-9.4e-5 + 8.5e-6j, 5.3e-5 - 6e-6j),
        "shape": tuple(int(n) for n in rng.integers(1, 7, 3)),
        "voxel": experiment.suggest_voxel(transport=one(rng, ("shift", "fourier"))),
        "polarization": one(rng, (None, {"sigma": 1.0}, {"sigma": 0.3, "pi": 0.7})),
        "coupling": one(rng, ("dynamical", "kinematic")),
        "dtype": one(rng, ("complex64", "complex128")),
        "threads": int(rng.integers(1, 3)),
        "resync": one(rng, (None, None, 1, 2)),
        "ewald": one(rng, ("curved", "flat")),
        "sampling": one(rng, ("point", "mean")),
        "point_spread": one(rng, (0.0, 0.0, 0.7, (0.3, 1.1))),
    }


def model_case(rng):
    from pendel import Experiment, Model

    arguments, error = refused(names_of(Experiment), model_arguments, rng)
    if error:
        return
    if rng.random() < 0.2:
        arguments[one(rng, list(arguments))] = one(rng, NASTY)
    model, error = refused({*names_of(Model, Experiment), "resolution"}, Model, **arguments)
    if error:
        return
    frame_shape = model.experiment.detector_shape
    data_shape = (model.n_frames, *frame_shape)
    S = values(rng, model.shape, model.dtype)
    crystal = {"S": S, "s_0": one(rng, (None, np.abs(S), values(rng, S.shape, model.real_dtype)))}
    measured = {
        "data": np.abs(values(rng, data_shape, one(rng, ("f4", "f8")), 10.0)),
        "mask": one(rng, (None, rng.random(data_shape) < 0.8, rng.random(frame_shape) < 0.8)),
        "support": one(rng, (None, rng.random(S.shape) < 0.5)),
    }
    scan = {
        "dq": one(rng, (None, None, values(rng, (model.n_frames, 3), float, 1e6))),
        "flux": one(rng, (None, None, np.abs(values(rng, (model.n_frames,), model.real_dtype)))),
    }
    crystal, measured, scan = (given(rng, arrays, 0.07) for arrays in (crystal, measured, scan))
    frames, scale = one(rng, (None, [0], range(model.n_frames))), one(rng, (1.0, None, 1e-3, 1e30))
    if rng.random() < 0.2:
        frames, scale = one(rng, ([-1], [model.n_frames], [], *NASTY)), one(rng, (0, *NASTY))
    other = Model(**arguments | {"threads": 3 if model.threads != 3 else 1})
    for name, arrays in (
        ("intensities", crystal | scan | {"frames": frames}),
        ("loss_and_adjoint", crystal | measured | {"frames": frames, "scale": scale}),
        ("misfit", crystal | {"data": measured["data"], "mask": measured["mask"], "frames": frames}),
    ):
        known = names_of(getattr(model, name), model.fit, model.evaluate) | {"adjoint"}
        result, error = refused(known, getattr(model, name), **arrays)
        if not error:
            expect_finite(name, result)
            expect_same(name, result, getattr(other, name)(**arrays))


# ---- the search

CASES = (operator_case,) * 12 + (filter_case, far_field_case, far_field_case, model_case)


def judge(seed, cases=CASES):
    """What is wrong with the calls of a seed, or None."""
    rng = np.random.default_rng(seed)
    case = one(rng, cases)
    begin = time.process_time()
    try:
        case(rng)
    except Wrong as wrong:
        return f"{case.__name__}: {wrong}"
    except Exception:
        return f"{case.__name__}: {traceback.format_exc(limit=-5)}"
    took = time.process_time() - begin
    return f"{case.__name__}: {took:.1f} s" if took > LONGEST else None


def worker(seed, count):
    """Try seeds; a line of JSON for each: the seed, and then what is wrong where something is."""
    warnings.simplefilter("ignore")
    for at in range(seed, seed + count):
        print(json.dumps({"seed": at}), flush=True)
        wrong = judge(at)
        if wrong:
            print(json.dumps({"wrong": wrong}), flush=True)


def search(count, seed):
    """What was wrong in ``count`` seeds from ``seed`` on."""
    wrong, last = [], seed + count
    while seed < last:
        seed = _watch(seed, last, wrong)
    return wrong


def _watch(first, last, wrong):
    """Let a worker try its seeds; returns the seed to go on with."""
    command = [sys.executable, __file__, "--worker", "--seed", str(first), "--count", str(last - first)]
    at, said = first, time.monotonic()
    ended = threading.Event()
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:

        def watch():
            while not ended.wait(1):
                if time.monotonic() - said > PATIENCE:
                    process.kill()

        errors = []
        tasks = watch, lambda: errors.append(process.stderr.read())
        threads = [threading.Thread(target=task) for task in tasks]
        for thread in threads:
            thread.start()
        for line in process.stdout:
            said, told = time.monotonic(), json.loads(line)
            at = told.get("seed", at)
            if "wrong" in told:
                _note(wrong, at, told["wrong"])
            elif at % 10000 == 0:
                print(f"seed {at}: {len(wrong)} wrong so far", file=sys.stderr, flush=True)
        status = process.wait()
        ended.set()
        for thread in threads:
            thread.join()
    if status == 0:
        return last
    how = "too long" if time.monotonic() - said > PATIENCE else f"ended with {status}: {errors[0][:6000]}"
    _note(wrong, at, how)
    return at + 1


def _note(wrong, at, how):
    wrong.append(f"seed {at}: {how}")
    print(wrong[-1], file=sys.stderr, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        return worker(arguments.seed, arguments.count)
    begin = time.monotonic()
    wrong = search(arguments.count, arguments.seed)
    took = time.monotonic() - begin
    print(f"{arguments.count} seeds from {arguments.seed}: {len(wrong)} wrong, {took:.0f} s")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
