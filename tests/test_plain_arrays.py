"""Arrays that carry more than numbers (masks, units) are refused by the argument's name; plain subclasses are taken."""

import numpy as np
import pytest
from cube import make_model
from pendel import atv, compare, io, kinematic, multiscale, solve
from pendel.base import checks
from pendel.base.symmetry import strain, translate, twin


class Plain(np.ndarray):
    """A subclass that carries nothing."""


class Quantity(np.ndarray):
    """As of astropy and unyt: an array with a unit."""

    unit = "deg"


class Wrapped:
    """As of pint, xarray and pandas: what it is made of lies under another name."""

    def __init__(self, data, attrs=None, **more):
        self.data, self.attrs = data, attrs or {}
        self.shape, self.dtype = data.shape, data.dtype
        self.__dict__ |= more

    def __array__(self, dtype=None, copy=None):
        return np.array(self.data, dtype)

    def __len__(self):
        return len(self.data)


class MaskedOnReading:
    """As a variable of netCDF4: it becomes a masked array."""

    def __array__(self, dtype=None, copy=None):
        return masked(np.ones((3, 4)))


def masked(values):
    mask = np.zeros(np.shape(values), bool)
    mask.flat[0] = True
    return np.ma.masked_array(values, mask=mask)


VALUES = np.arange(12.0).reshape(3, 4)
CARRY_MORE = {
    "masked": masked(VALUES),
    "a list of masked": [masked(VALUES[0]), *VALUES[1:]],
    "a masked constant in a list": [[np.ma.masked, 1.0], [2.0, 3.0]],
    "a quantity": VALUES.view(Quantity),
    "a list of quantities": [list(VALUES[0].view(Quantity)[i : i + 1].reshape(()) for i in range(4))],
    "wrapped masked": Wrapped(masked(VALUES)),
    "wrapped quantity": Wrapped(VALUES.view(Quantity)),
    "units": Wrapped(VALUES, units="mm"),
    "attributes": Wrapped(VALUES, {"units": "degrees"}),
    "attributes of bytes": Wrapped(VALUES, {"unit": b"nm"}),
    "a mask beside": Wrapped(VALUES, mask=VALUES > 3),
    "masked when read": MaskedOnReading(),
}


@pytest.mark.parametrize("value", CARRY_MORE.values(), ids=CARRY_MORE)
def test_what_an_array_carries_beside_its_numbers_is_refused_by_name(value):
    with pytest.raises(TypeError, match=r"^given: expected plain numbers"):
        checks.array("given", value, (None, None), float)


PLAIN = {
    "list": VALUES.tolist(),
    "subclass": VALUES.view(Plain),
    "matrix": np.matrix(VALUES),
    "nothing masked": np.ma.masked_array(VALUES, mask=np.zeros(VALUES.shape, bool)),
    "no mask": np.ma.masked_array(VALUES),
    "no dimension": Wrapped(VALUES, units="dimensionless"),
    "counts": Wrapped(VALUES, {"units": "counts"}),
    "no unit": Wrapped(VALUES, {"long_name": "theta"}),
}


@pytest.mark.parametrize("value", PLAIN.values(), ids=PLAIN)
def test_what_carries_nothing_is_taken(value):
    taken = checks.array("given", value, (None, None), float)
    assert type(taken) is np.ndarray and (taken == VALUES).all()


def test_a_memory_map_is_taken(tmp_path):
    np.save(tmp_path / "a.npy", VALUES)
    assert (checks.array("given", np.load(tmp_path / "a.npy", mmap_mode="r"), (3, 4), float) == VALUES).all()


class Length(float):
    units = "mm"


@pytest.mark.parametrize("value", [Length(750), np.array(3.0).view(Quantity), np.timedelta64(5, "s"), np.ma.masked])
def test_numbers_with_a_unit_are_refused_by_name(value):
    with pytest.raises(TypeError, match="^distance: "):
        checks.number("distance", value)


def test_real_packages_are_refused_by_name():
    astropy = pytest.importorskip("astropy.units")
    with pytest.raises(TypeError, match="^given: .*'deg'"):
        checks.array("given", VALUES * astropy.deg, (3, 4), float)
    assert checks.array("given", VALUES * astropy.dimensionless_unscaled, (3, 4), float).sum() == VALUES.sum()


def test_pint_and_xarray_and_pandas():
    pint, xarray, pandas = (pytest.importorskip(name) for name in ("pint", "xarray", "pandas"))
    angles = VALUES[0]
    for value in (pint.Quantity(angles, "deg"), xarray.DataArray(angles, attrs={"units": "deg"})):
        with pytest.raises(TypeError, match="^given: .*deg"):
            checks.array("given", value, (4,), float)
    for value in (pint.Quantity(angles, ""), xarray.DataArray(angles), pandas.Series(angles)):
        assert (checks.array("given", value, (4,), float) == angles).all()


@pytest.fixture(scope="module")
def scan():
    model = make_model(threads=1)
    S = np.ones(model.shape, np.complex64)
    return model, S, model.intensities(S)


def places(model, S, data):
    """{argument: call} of what takes arrays, each of a masked one."""
    m, e, crystal, bad = masked(data), model.experiment, model.crystal, masked(np.ones(data.shape, bool))
    S_masked, dq, op = masked(S), masked(e.dq), model.operators[0][1]
    return {
        "S of forward": lambda: op.forward(S_masked, e.dq),
        "dq of forward": lambda: op.forward(S, dq),
        "s_0 of forward": lambda: op.forward(S, e.dq, masked(np.abs(S))),
        "S of intensities": lambda: model.intensities(S_masked),
        "S of intensities_on_host": lambda: model.intensities_on_host(S_masked),
        "frames of intensities": lambda: model.intensities(S, masked(np.arange(3))),
        "flux of intensities": lambda: model.intensities(S, flux=masked(np.ones(len(data)))),
        "data of fit": lambda: model.fit(m),
        "mask of fit": lambda: model.fit(data, bad),
        "background of fit": lambda: model.fit(data, background=m),
        "data of misfit": lambda: model.misfit(S, m),
        "data of phase": lambda: kinematic.phase(m),
        "mask of phase": lambda: kinematic.phase(data, bad),
        "support of phase": lambda: kinematic.phase(data, support=bad),
        "data of multiscale": lambda: multiscale(model, m, progress=False),
        "start of multiscale": lambda: multiscale(model, data, start=S_masked, progress=False),
        "data of solve": lambda: solve(e, crystal, m, progress=False),
        "mask of solve": lambda: solve(e, crystal, data, bad, progress=False),
        "S of compare": lambda: compare(S_masked, S, model.voxel),
        "S of strain": lambda: strain(S_masked, model.voxel, e.h),
        "S of translate": lambda: translate(S_masked, 1),
        "S of twin": lambda: twin(S_masked),
        "S of atv": lambda: atv(S_masked),
        "data of pattern_centre": lambda: io.pattern_centre(m),
        "mask of pattern_centre": lambda: io.pattern_centre(data, bad),
        "data of hot_pixel_mask": lambda: io.hot_pixel_mask(m),
        "rocking_angles of Experiment": lambda: e.replace(rocking_angles=masked(e.rocking_angles)),
    }


NAMES = list(places(make_model(threads=1), np.ones(1), np.ones((len(make_model().dq), 1, 1))))


@pytest.mark.parametrize("name", NAMES)
def test_every_public_function_refuses_a_masked_array_by_the_argument(scan, name):
    argument = name.split()[0]
    with pytest.raises(TypeError, match=f"^{argument}: expected plain numbers"):
        places(*scan)[name]()


def test_writing_refuses_a_masked_array(scan, tmp_path):
    model, _, data = scan
    e = model.experiment
    known = {"distance": e.distance, "pixel_size": e.pixel_size, "wavelength": e.wavelength}
    for name, value in (("data", masked(data)), ("rocking_angles", masked(e.rocking_angles))):
        with pytest.raises(TypeError, match=f"^{name}: expected plain"):
            io.write_scan(tmp_path / "a.cxi", **({"data": data} | known | {name: value}))


def test_a_number_that_the_dtype_cannot_hold_is_refused_as_such():
    with pytest.raises(ValueError, match="^S: expected numbers that float32 can hold"):
        checks.array("S", [1e300, 1.0], (2,), np.float32)
    with pytest.raises(ValueError, match="^n: expected integers that int64 can hold"):
        checks.array("n", np.array([2**63], np.uint64), (1,), np.int64)


def test_an_array_at_any_address_is_copied_to_an_aligned_one(scan):
    model, S, _ = scan
    op, dq = model.operators[0][1], model.experiment.dq
    buffer = np.zeros(S.nbytes + 1, np.uint8)
    odd = buffer[1:].view(S.dtype).reshape(S.shape)
    odd[...] = S
    assert not odd.flags.aligned
    assert checks.array("S", odd, S.shape, S.dtype).flags.aligned
    assert (op.forward(odd, dq) == op.forward(S, dq)).all()
