"""Arrays and other arguments from a seed, for fuzz_operator.py: of usual and of extreme values, laid out in memory in
all ways that mean the same, and spoilt.
"""

import math
import os
import warnings

import numpy as np

SANITIZED = "san.so" in os.environ.get("LD_PRELOAD", "")  # where more memory than there is ends the process

# In place of any argument.
NASTY = (None, math.nan, math.inf, -math.inf, 0, -1, 0.5, 1e300, -1e300, 5e-324, -0.0, True, "1", b"1", "", 1j, [], ())
NASTY += ({}, object(), 2**31, 2**62, 2**63, 2**70, 10**400, np.float32(1), np.int8(1), np.array(1.0), np.array([1.0]))
NASTY += (np.ma.masked, np.datetime64(1, "s"), np.timedelta64(1, "s"), np.str_("x"), complex(math.nan, 0), float, "\0")
SHAPES = ((0, 1, 1), (1, 1), (2, -1, 2), (2.0, 2, 2), "abc", (2**31, 1, 1), (1, 2**62, 1), (1, 1, 2**24), (1, 1, 2**40))
SHAPES += ((2**70, 1, 1), (2**32, 2**32, 1), ((1,), 1, 1), np.array([2, 2, 2]), (True, 2, 2), (10**400, 1, 1))
SPECIAL = {"usual": 12, "zeros": 2, "sparse": 3, "huge": 2, "tiny": 2, "nan": 1, "inf": 1}
LAYOUTS = ("C", "C", "fortran", "strided", "reversed", "unaligned", "swapped", "read-only", "list", "broadcast")
LAYOUTS += ("field",)  # of a record


def one(rng, items):
    return items[int(rng.integers(len(items)))]


def values(rng, shape, dtype, usual=1.0):
    """Numbers of one kind, most often usual ones."""
    dtype = np.dtype(dtype)
    kinds = list(SPECIAL)
    kind = kinds[rng.choice(len(kinds), p=np.array(list(SPECIAL.values())) / sum(SPECIAL.values()))]
    array = rng.normal(size=shape) * usual
    if dtype.kind == "c":
        array = array + 1j * rng.normal(size=shape) * usual
    if kind == "sparse":
        array = array * (rng.random(shape) < 0.2)
    sizes = {
        "zeros": (0.0,),
        "huge": (1e3, 1e10, 1e20, 1e38, 1e160, 1e300),
        "tiny": (1e-10, 1e-20, 1e-38, 1e-42, 1e-160, 1e-300, 1e-310),
    }
    with np.errstate(all="ignore"):
        array = np.array(array * one(rng, sizes.get(kind, (1.0,)))).astype(dtype)
    if kind in ("nan", "inf") and array.size:
        array.flat[int(rng.integers(array.size))] = {"nan": math.nan, "inf": math.inf}[kind]
    return array


def laid_out(rng, array):
    """The same values in another memory order, at another address, or as another type that holds them."""
    how = one(rng, LAYOUTS)
    if how == "fortran":
        return np.asfortranarray(array)
    if how == "strided":
        wide = np.full((*array.shape[:-1], 2 * array.shape[-1]), 7, array.dtype)
        wide[..., ::2] = array
        return wide[..., ::2]
    if how == "reversed":
        return np.ascontiguousarray(array[::-1])[::-1]
    if how in ("unaligned", "field"):
        kind = np.dtype([("before", f"V{one(rng, (1, 2, 4, 8))}"), ("here", array.dtype)])
        if how == "field":
            record = np.zeros(array.shape, kind)
            record["here"] = array
            return record["here"]
        room = np.zeros(array.nbytes + 1, np.uint8)[1:]
        placed = room[: array.nbytes].view(array.dtype).reshape(array.shape)
        placed[...] = array
        return placed
    if how == "swapped":
        return array.astype(array.dtype.newbyteorder())
    if how == "read-only":
        array = array.copy()
        array.flags.writeable = False
        return array
    if how == "list" and array.size:
        return array.tolist()
    if how == "broadcast" and array.size and (array == array.flat[0]).all():
        return np.broadcast_to(array.flat[0], array.shape)
    return array


def spoilt(rng, array):
    """Something that may not be taken for the array, or may."""
    how = rng.integers(9)
    if how == 0:
        return one(rng, NASTY)
    if how == 1:
        return array[..., None] if rng.random() < 0.5 else array.reshape(-1)
    if how == 2:
        return array[..., :-1] if rng.random() < 0.5 else array[:0]
    if how == 3:
        return array.swapaxes(0, -1)
    if how == 4:
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return array.astype(one(rng, ("f2", "f4", "f8", "c8", "c16", "g", "G", "?", "i1", "O", "U9", "S9")))
    if how == 5:
        return np.ma.masked_array(array, np.ones(array.shape, bool) if rng.random() < 0.5 else False)
    if how == 6:
        return np.zeros(array.shape, one(rng, ("M8[s]", "m8[s]", "V3", [("a", "f4")], "i8", "u1", "f4", "?")))
    if how == 7 and not SANITIZED:
        return np.broadcast_to(array.dtype.type(1), one(rng, ((2**40, 3), (2**20, 2**20, 2**10), (2**44,))))
    return array.astype(array.dtype, copy=True).view(np.matrix) if array.ndim == 2 else np.array(array.tolist())


def given(rng, arrays, spoil=0.1):
    """Arrays, each laid out in some way, or spoilt."""
    return {
        name: None if array is None else spoilt(rng, array) if rng.random() < spoil else laid_out(rng, array)
        for name, array in arrays.items()
    }
