"""A pass over frames whose groups are shared among ranks: the same bits for any number of them.

The frames of a pass are parted into groups, by their number alone. A group is worked at whole, by one rank, in the
blocks and the order that `pendel.model.passes` has for it. What frames give by themselves, numbers, is told to all
ranks, and added up by each in the order of the frames; gradients with respect to the crystal are added up over the tree
of groups, `pendel.model.ranks`, only where they are not 0.

Every group costs the matrices and gradients of the crystal's voxels once more, as much as some 40 frames of a sweep
(96^3, complex64, AVX-512, a crystal that fills a ninth of its box), beside the far fields. So groups are few, and
larger where there are many frames; and as that of ranks mostly is, their number is a power of two.
"""

import numpy as np

from . import loss
from .passes import Gradient, Pass
from .ranks import Partial

LEAST = 12  # frames in a group, twice as many from FEW groups on
FEW = 4


def groups_of(count):
    """Slices of ``range(count)``, nearly equal: 2 from 24 frames on, 4 from 48, 8 from 192, 16 from 384 ..."""
    groups = 1
    while count >= 2 * groups * LEAST * (1 if groups < FEW else 2):
        groups *= 2
    edges = [count * i // groups for i in range(groups + 1)]
    return [slice(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)]


class RankedPass(Pass):
    """A `Pass` of several ranks; all of them are to ask for the same at once, and get the same.

    Parameters
    ----------
    ranks : `pendel.model.ranks.Ranks`
    parts : as of `Pass`
    """

    def __init__(self, ranks, *parts):
        super().__init__(*parts)
        self.ranks = ranks

    def intensities(self, S, frames, s_0, dq, flux, point_spread=None, coherence=None):
        groups = groups_of(len(frames))
        asked = {"S": S, "s_0": s_0, "frames": frames, "dq": dq, "flux": flux}
        own = [groups[i] for i in self.ranks.share(len(groups))]
        shape = 0, *self.far_field.detector_shape
        parts = [np.empty(shape, self.real)]

        def compute():
            simply = super(RankedPass, self).intensities
            parts.extend(simply(S, frames[group], s_0, dq, flux, point_spread, coherence) for group in own)

        self._agreed(asked, compute)
        return self.ranks.joined(np.concatenate(parts), [group.stop - group.start for group in groups])

    def _through(self, task, frames, scale):
        groups = groups_of(len(frames))
        share = self.ranks.share(len(groups))
        own = {i: frames[groups[i]] for i in share}
        asked = {"S": task.S, "s_0": task.s_0, "frames": frames, "dq": task.dq, "flux": task.flux}
        asked |= {"support": task.support, "scale": scale, "gradient": task.gradient}
        all_sums, firsts = None, dict.fromkeys(own)
        if scale is None:
            scale, all_sums = self._scale_of_all(task, own, firsts, asked)
            asked = {}

        partials = self._partials(task, len(groups))

        def compute():
            return [self._group(task, own[i], scale, len(frames), firsts.pop(i), partials, i) for i in own]

        told = [group for rank in self._agreed(asked, compute) for group in rank]
        rows, adj_dq, adj_shifts = zip(*told, strict=True)
        total = Gradient()
        if task.gradient:
            total.adj_dq, total.adj_shifts = list(adj_dq), list(adj_shifts)
            total.adj_S, total.adj_s_0 = (self._whole(partial, task) for partial in partials)
        return scale, all_sums, np.concatenate(rows, axis=1), total

    def _scale_of_all(self, task, own, firsts, asked):
        """(scale, its sums (2, L)) of all frames; in ``firsts``, by group, what `_evaluate_block` takes from there.

        That is kept where the rank's groups are a block together; bits do not depend on it.
        """
        hold = len(self.blocks(max(sum(map(len, own.values())), 1), task.beam)) == 1
        chunks = RankedChunks(self.ranks, self.real)
        forward = task if hold else task._replace(gradient=False)

        def compute():
            told = []
            for i, indices in own.items():
                blocks = [self._forward_block(forward, indices[b], hold) for b in self.blocks(len(indices), task.beam)]
                if hold:
                    firsts[i] = blocks[0]
                chunks.extend(chunk for block in blocks for chunk in block.chunks)
                told += [(block.weighted, block.sums) for block in blocks]
            return told

        told = [block for rank in self._agreed(asked, compute) for block in rank]
        weighted, sums = zip(*told, strict=True)
        likelihood = task.fit.likelihood
        keeps = likelihood.has_background or task.nuisance.background is not None
        scale = likelihood.scale(*np.sum(weighted, axis=0), chunks if keeps else ())
        return scale, np.concatenate(sums, axis=1)

    def _group(self, task, indices, scale, count, first, partials, i):
        """(rows of `_residual`, adj_dq, [adj_dq of every operator]) of group ``i``, its gradients to ``partials``."""
        total, blocks = Gradient(), self.blocks(len(indices), task.beam)
        rows = [self._evaluate_block(task, indices[block], scale, count, first, total) for block in blocks]
        rows = np.concatenate(rows, axis=1)
        if not task.gradient:
            return rows, None, None
        for partial, adj in zip(partials, (total.adj_S, total.adj_s_0), strict=True):
            if partial is not None:
                partial.add(i, adj.ravel() if task.support is None else adj[task.support])
        shifts = "coherence" in task.nuisance.gradients
        by_operator = [np.concatenate(parts) for parts in zip(*total.adj_shifts, strict=True)] if shifts else []
        return rows, np.concatenate(total.adj_dq), by_operator

    def _partials(self, task, groups):
        """`Partial` sums of adj_S and of adj_s_0, or None where there is none."""
        if not task.gradient:
            return None, None
        size = task.S.size if task.support is None else int(np.count_nonzero(task.support))
        of_s_0 = None if task.s_0 is None else Partial(groups, size, self.real)
        return Partial(groups, size, task.S.dtype), of_s_0

    def _whole(self, partial, task):
        """The sum of all ranks as an array (nz, ny, nx), or None."""
        if partial is None:
            return None
        added = self.ranks.added(partial)
        if task.support is None:
            return added.reshape(task.S.shape)
        whole = np.zeros(task.S.shape, added.dtype)
        whole[task.support] = added
        return whole

    def _agreed(self, asked, compute):
        """[what ``compute`` gives on every rank]. Raises RuntimeError where the ranks ask for different things."""
        sums = {name: checksum(value) for name, value in asked.items()} if self.ranks.size > 1 else {}
        told = self.ranks.gathered(lambda: (sums, compute()))
        for rank, (others, _) in enumerate(told):
            for name, other in others.items():
                if other != told[0][0].get(name):
                    raise RuntimeError(
                        f"{name}: expected the same on all ranks, got another on rank {rank} than on rank 0; they "
                        "have come apart, or were asked for different things"
                    )
        return [found for _, found in told]


class RankedChunks(loss.Chunks):
    """`loss.Chunks` of which every rank has its own."""

    def __init__(self, ranks, dtype):
        super().__init__()
        self._ranks, self._dtype = ranks, dtype

    def __bool__(self):
        return True

    @property
    def dtype(self):
        return self._dtype

    def drawn(self, scale, of_roots):
        simply = super().drawn
        return [pair for rank in self._ranks.gathered(lambda: simply(scale, of_roots)) for pair in rank]

    def backgrounds(self):
        simply = super().backgrounds
        return [mean for rank in self._ranks.gathered(simply) for mean in rank]


def checksum(value):
    """A number that tells arrays of other values apart, at the speed of memory; other values themselves."""
    if getattr(value, "ndim", 0) == 0:
        return value
    data = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
    whole = len(data) // 8 * 8
    return value.shape, int(data[:whole].view(np.uint64).sum()), data[whole:].tobytes()
