"""The unknowns of `polish` in units in which all of them move alike: L-BFGS crawls along what stiff priors tie.

A smoothness lambda makes the finest ripples of the phase 48 lambda/f times as stiff as the data make a voxel's phase (f
as in `pendel.fit.evidence`), a uniformity alpha the amplitudes alpha/f times. About S_b, where a run begins, with
e = S_b/|S_b|, in the support

(1) S = e exp(i u) (|S_b| + A a + i F v),    u = M C^T G b
    A = (1 + alpha/f)^-1/2,    F = (1 + lambda h/(f (|S_b|^2 + 0.01)))^-1/2,    G_k = (1 + lambda kappa_k/f)^-1/2
    kappa_k = sum_axes g (2 - 2 cos(pi k/n_axis))^2,    h as in `Perfection.held`
(2) adj_a = A Re conj(w) adj_S,    adj_v = F Im conj(w) adj_S,    w = e exp(i u),    adj_b = G C M Im conj(S) adj_S

a and v are real, of the support's voxels; b are the cosine modes of a box about the voxels where M is 1, C is the
orthonormal transform (DCT-II). M: the solid voxels but the exceptions of the evidence, where a phase may turn about
nothing; lambda of G is the median there. A phase is so cut out of one that goes on smoothly beyond the surface; what
moves more freely than such a phase, at the surface, in exceptions, in a hole that opens, has v. exp(i u), for what is
stiff in |S| must not become so in the phase as soon as that has turned.
"""

import numpy as np
from scipy import fft, ndimage

from .evidence import FLOOR
from .quasi_newton import Cartesian

LOOSER = 0.5  # than the usual lambda by that part, at least: exceptions, which are granted a smaller one


class Preconditioned(Cartesian):
    """What L-BFGS-B moves in place of Re S and Im S: a, v and b of (1), float64, 0 at the start.

    Parameters
    ----------
    S : complex (nz, ny, nx)
    support : bool (nz, ny, nx)
    priors : `Priors` of S, `Priors.stiff`
    threads : of the transforms; the same bits for any number
    """

    def __init__(self, S, support, priors, threads=1):
        super().__init__(S, support)
        self.threads = threads
        c = S[support].astype(np.complex128)
        self.full = np.abs(c)
        self.unit = np.where(self.full > 0, c / np.where(self.full > 0, self.full, 1), 1)

        perfection = priors.perfection
        precision, evenness = _stiffness(S, priors)
        self.stretch = 1 / np.sqrt(1 + evenness[support])
        usual = float(np.median(precision[perfection.solid]))
        tied = perfection.solid & (precision >= LOOSER * usual)
        self.modes = _Modes(tied, usual, perfection.g)
        held = (precision * perfection.held())[support] / (np.square(self.full) + FLOOR)
        self.give = 1 / np.sqrt(1 + held)
        self._latest = None

    def start(self):
        """x at S_b."""
        return np.zeros(2 * self.size + self.modes.scale.size)

    def values(self, x):
        """(1) of the support's voxels, complex128."""
        return self._at(x)[0]

    def adjoint(self, x, adj_c, adj_s_0):
        """(2) of the gradient with respect to `values`."""
        c, wave = self._at(x)
        adj_u = np.zeros(self.begin.shape)
        adj_u[self.support] = (np.conj(c) * adj_c).imag
        adj_b = self.modes.adjoint(adj_u, self.threads)
        del adj_u
        turned = np.conj(wave) * adj_c
        return np.concatenate([self.stretch * turned.real, self.give * turned.imag, adj_b])

    def _at(self, x):
        """`values` of x, and w of (2); kept, for x is asked for several times in turn."""
        if self._latest is None or not np.array_equal(x, self._latest[0]):
            self._latest = None  # what it has makes room
            a, v, b = np.split(x, [self.size, 2 * self.size])
            u = self.modes.forward(b, self.begin.shape, self.threads)[self.support]
            wave = self.unit * np.exp(1j * u)
            c = wave * (self.full + self.stretch * a + 1j * self.give * v)
            self._latest = x.copy(), (c, wave)
        return self._latest[1]


def _stiffness(S, priors):
    """lambda/f and alpha/f, (nz, ny, nx), as far as S bears them.

    A number that was given, and not found by evidence, may ask for far more than S is: R and U above the number of
    their voxels. Unknowns that fit the end of so long a way are too stiff on it, for it is not straight.
    """
    perfection, n = priors.perfection, np.count_nonzero(priors.perfection.solid)
    R, U = perfection.roughness(S, priors.smoothness)[0], perfection.unevenness(S, priors.uniformity)[0]
    precision = priors.smoothness / (priors.learned * max(1.0, R / n))
    evenness = priors.uniformity / (priors.learned * max(1.0, U / n))
    return np.broadcast_to(precision, S.shape), np.where(perfection.filled, evenness, 0)


class _Modes:
    """M C^T G.

    Parameters
    ----------
    tied : bool (nz, ny, nx), M
    precision : lambda/f
    g : of (1) of `pendel.fit.evidence`, (z, y, x)

    Attributes
    ----------
    scale : float64, G
    """

    def __init__(self, tied, precision, g):
        (self.box,) = ndimage.find_objects(tied.astype(np.uint8))
        self.tied = tied[self.box]
        turns = [np.pi * np.arange(n) / n for n in self.tied.shape]
        z, y, x = (part * np.square(2 - 2 * np.cos(turn)) for part, turn in zip(g, turns, strict=True))
        self.scale = 1 / np.sqrt(1 + precision * (z[:, None, None] + y[:, None] + x))

    def forward(self, b, shape, threads):
        """Phases, of this shape, of b, (modes,)."""
        phase = np.zeros(shape)
        b = b.reshape(self.scale.shape)
        phase[self.box] = self.tied * fft.idctn(self.scale * b, norm="ortho", workers=threads)
        return phase

    def adjoint(self, adj, threads):
        """Gradient with respect to b of that with respect to phases."""
        return (self.scale * fft.dctn(self.tied * adj[self.box], norm="ortho", workers=threads)).ravel()
