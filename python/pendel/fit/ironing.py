"""Phases of the surface, ironed before a run of `polish`.

The smoothness of `pendel.fit.evidence` ties voxels that are solid where a run begins. Voxels that become solid in the
run had phases that nothing tied, most of all along the edges between two facets, and the next run finds bends there
that cost more than all frames. It takes its iterations to undo what needs no frames to be undone: with phi the phases
of voxels that are solid but not filled, phi_b those where the run begins, f what the data tell of one of them

(1) minimise over phi:   R(S) + sum f |S|^2 (phi - phi_b)^2
(2) gradient:            Im(conj(S) adj_S) + 2 f |S|^2 (phi - phi_b)

bench/paper.py A, small, 1e8 photons, second round of the last step of `solve`: it began at a loss of 5.7, after 1.57 at
the end of the first, and ended at 1.83; ironed it begins at 1.63 and ends at 1.52. Without the second term of (1) a
porous crystal of bench/foreign.py, seed 1, ends at 0.0063 rad, with it at 0.0048.
"""

import numpy as np
from scipy import optimize

ITERATIONS = 30  # an evaluation of (1) costs what two additions to all voxels cost; the cases above need no more


def ironed(S, priors):
    """S with (1) minimised, or S itself where nothing is tied.

    Parameters
    ----------
    S : complex (nz, ny, nx)
    priors : `Priors` of S
    """
    if not (priors.stiff and np.any(priors.smoothness)):
        return S
    loss = Ironing(S, priors)
    found = optimize.minimize(loss, loss.start, jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS})
    return loss.S(found.x).astype(S.dtype)


class Ironing:
    """(1) and (2) as functions of phi.

    Attributes
    ----------
    surface : bool (nz, ny, nx), the voxels whose phases are phi
    start : float64, phi_b
    """

    def __init__(self, S, priors):
        self.perfection, self.smoothness = priors.perfection, priors.smoothness
        self.surface = self.perfection.solid & ~self.perfection.filled
        self._S = S.astype(np.complex128)
        self.size, self.start = np.abs(self._S[self.surface]), np.angle(self._S[self.surface])
        self.known = priors.learned * np.square(self.size)

    def S(self, phi):
        """The crystal with these phases, complex128."""
        self._S[self.surface] = self.size * np.exp(1j * phi)
        return self._S

    def __call__(self, phi):
        S, away = self.S(phi), phi - self.start
        bends, adj_S = self.perfection.roughness(S, self.smoothness)
        adj_phi = (S.conj() * adj_S)[self.surface].imag
        return bends + float(np.sum(self.known * away * away)), adj_phi + 2 * self.known * away
