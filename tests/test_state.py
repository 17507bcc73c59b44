"""What passes from forward to adjoint, and what the adjoint refuses to compute from it."""

import numpy as np
import pendel
import pytest


def test_a_state_of_another_precision_is_refused(problem, operator_of, gold):
    p = problem((5, 2, 8), gold)
    _, state = operator_of(p, dtype="complex64").forward(p.S, p.dq, return_state=True)
    with pytest.raises(ValueError, match=r"state: expected that of forward .* complex128 of shape .* got complex64"):
        operator_of(p).adjoint(p.S, p.dq, p.adj_E_h, state=state)


def test_a_state_in_another_memory_order_is_refused(problem, operator_of, gold):
    p = problem((5, 2, 8), gold)
    op = operator_of(p)
    _, state = op.forward(p.S, p.dq, return_state=True)
    with pytest.raises(ValueError, match="state: expected"):
        op.adjoint(p.S, p.dq, p.adj_E_h, state=state._replace(E_h=np.asfortranarray(state.E_h)))


@pytest.mark.parametrize("options", [{}, {"resync": 2}, {"transport": "fourier"}])
def test_a_state_is_not_changed_through_what_is_handed_out_with_it(problem, operator_of, gold, options):
    """Embeddings write into what they are given: the gradient stays that of the state."""
    for shape in ((5, 2, 8), (1, 2, 8)):  # of one layer E_0 leaves on the whole row
        p = problem(shape, gold)
        op = operator_of(p, **options)
        E_h, E_0, state = op.forward(p.S, p.dq, return_E_0=True, return_state=True)
        adj_E_h = np.ones_like(E_h)
        expected = op.adjoint(p.S, p.dq, adj_E_h, state=state).S
        for array in (E_h, E_0):
            assert array.flags.writeable and not any(np.shares_memory(array, s) for s in state if s is not None)
            array *= 2
        assert np.array_equal(op.adjoint(p.S, p.dq, adj_E_h, state=state).S, expected)


def test_the_arrays_of_a_state_cannot_be_changed(problem, operator_of, gold):
    p = problem((5, 2, 8), gold)
    for array in operator_of(p, resync=2).forward(p.S, p.dq, return_state=True)[1]:
        with pytest.raises(ValueError, match="read-only"):
            array *= 2


@pytest.mark.parametrize("transport", ["shift", "fourier"])
def test_a_reversal_that_has_lost_its_digits_is_an_error(problem, operator_of, gold, transport):
    """Rough and absorbing a hundred times more than gold: in single precision nothing comes back of the entrance."""
    p = problem((36, 1, 27), gold | {k: 100 * gold[k] for k in ("chi_0", "chi_h")}, transport=transport)
    p.physics |= {"voxel": tuple(6 * v for v in p.physics["voxel"])}
    with pytest.raises(
        RuntimeError, match="adjoint: expected the reversed sweep .* dtype='complex128' or scheme='etd2rk'"
    ):
        operator_of(p, dtype="complex64").adjoint(p.S, p.dq, p.adj_E_h)
    assert operator_of(p).reversal_error(p.S, p.dq) < 1e-2  # the bound of the refusal: double still does it


def test_units_gone_wrong_are_named():
    with pytest.raises(ValueError, match=r"voxel: expected dz tan\(two_theta\) / dx <= 1000 pixels, got 1e\+06"):
        pendel.TakagiTaupin((4, 1, 4), (8e-3, 8e-9, 8e-9), 1.5e-10, np.pi / 4, 0, 1e-5)


def test_more_threads_than_the_machine_gives_change_nothing(problem, operator_of, gold):
    p = problem((3, 64, 5), gold)
    results = [operator_of(p, threads=t).forward(p.S, p.dq) for t in (1, 64)]
    assert np.array_equal(*results)
