"""What a crystal is made of, for one reflection, and the states of polarisation it is seen in."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..base import checks, plausible


@dataclass(frozen=True)
class Crystal:
    """Susceptibilities of one reflection, for fields exp(+ik.r), where Im chi > 0 absorbs.

    Attributes
    ----------
    chi_0 : complex.
    chi_h, chi_hbar : complex, for sigma polarisation, without the factor C. chi_hbar=None means chi_h
        (centrosymmetric), which is not conj(chi_h) in an absorbing crystal.
    name, hkl : for the record only.
    d_spacing : of the lattice planes, m, and
    wavelength : that the susceptibilities are for, m; None: not known. A `Model` warns where they contradict its
        experiment.

    Raises
    ------
    TypeError, ValueError : naming the attribute; ValueError for Im chi_0 < 0.
    """

    chi_0: complex
    chi_h: complex
    chi_hbar: complex | None = None
    name: str = ""
    hkl: tuple[int, int, int] | None = None
    d_spacing: float | None = field(default=None, compare=False)
    wavelength: float | None = field(default=None, compare=False)

    def __post_init__(self):
        for name in ("chi_0", "chi_h"):
            object.__setattr__(self, name, plausible.susceptibility(name, getattr(self, name)))
        chi_hbar = self.chi_h if self.chi_hbar is None else plausible.susceptibility("chi_hbar", self.chi_hbar)
        object.__setattr__(self, "chi_hbar", chi_hbar)
        if self.chi_0.imag < 0:
            raise ValueError(
                f"chi_0: expected Im chi_0 >= 0 (fields exp(+ik.r), Im chi > 0 absorbs), got {self.chi_0}; "
                "take the complex conjugate of all susceptibilities of the opposite convention"
            )
        for name, quantity in (("d_spacing", plausible.SPACING), ("wavelength", plausible.WAVELENGTH)):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, plausible.number(quantity, name, getattr(self, name)))
        if self.hkl is not None:
            if len(tuple(self.hkl)) != 3:
                raise ValueError(f"hkl: expected 3 integers, got {self.hkl!r}")
            object.__setattr__(self, "hkl", tuple(checks.integer("hkl", v) for v in self.hkl))


def polarization_fractions(value: Mapping[str, float]) -> dict[str, float]:
    """{"sigma": w, "pi": w} of a dict of one or both, checked to sum to 1."""
    if not isinstance(value, Mapping) or not value or not set(value) <= {"sigma", "pi"}:
        raise ValueError(f"polarization: expected a dict of 'sigma' and 'pi' fractions, got {value!r}")
    weights = {s: checks.number(f"polarization[{s!r}]", value.get(s, 0.0), at_least=0) for s in ("sigma", "pi")}
    # 1e-6: fractions written with six digits, or computed in single precision, still pass.
    if abs(sum(weights.values()) - 1) > 1e-6:
        raise ValueError(f"polarization: expected fractions that sum to 1, got {value!r}")
    return weights
