"""Pictures: colours mean what they say, every figure can be drawn, missing parts are left out."""

import dataclasses

import numpy as np
import pytest

pytest.importorskip("matplotlib")

from pendel import io
from pendel.analysis import plot  # noqa: E402


def crystal(rng, n=12):
    z, y, x = np.indices((n, n, n)) - n // 2
    S = (np.maximum(np.abs(z), np.maximum(np.abs(y), np.abs(x))) < n // 3) * np.exp(0.2j * x)
    return S.astype(np.complex64)


def test_hue_is_the_phase_and_brightness_the_amplitude():
    S = np.array([1, np.exp(2j * np.pi / 3), np.exp(-2j * np.pi / 3), 0.5, 0])
    expected = [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0, 0], [0, 0, 0]]
    assert plot.complex_to_rgb(S) == pytest.approx(np.array(expected), abs=1e-12)  # rounding of exp and angle
    assert plot.complex_to_rgb(S, 0.5)[3] == pytest.approx([1, 0, 0])
    assert (plot.complex_to_rgb(np.zeros((2, 3), complex)) == 0).all()
    with pytest.raises(ValueError, match="maximum: expected"):
        plot.complex_to_rgb(S, 0)


def full(rng):
    S = crystal(rng)
    phase = np.angle(S)
    frame = rng.poisson(50, (16, 18)).astype(float)
    curve = rng.poisson(500, 9).astype(float)
    return io.StoredResult(
        S=S, support=np.abs(S) > 0.5, voxel=(6e-9, 5e-9, 5e-9), phase=phase, displacement=phase * 1e-11,
        strain=phase * 1e-3,
        wavelength=1.4e-10, hkl=(1, 1, 1), crystal="Au", name="gold", misfit=0.01, measured_frame=frame,
        modelled_frame=frame * 1.1, frame_index=4, rocking_angles=np.arange(9) * 1e-4, rocking_measured=curve,
        rocking_modelled=curve * 1.1, loss={"loss": np.array([3.0, 1.0, 0.5]), "misfit": np.array([0.3, 0.1, 0.05])},
    )  # fmt: skip


def titles(figure):
    return " | ".join(a.get_title() for a in figure.axes) + " | ".join(
        t.get_text() for a in figure.axes for t in a.texts
    )


def test_a_full_result_shows_every_panel_at_1600_pixels(tmp_path, rng):
    figure = plot.result_figure(full(rng))
    text = titles(figure)
    for panel in (
        "slice xy",
        "slice xz",
        "slice yz",
        "phase",
        "displacement",
        "strain",
        "measured, frame 4",
        "rocking",
        "loss",
    ):
        assert panel in text
    assert "not in the file" not in text and "Au (1 1 1)" in text and "nm" in text
    plot.save(figure, tmp_path / "a.png")
    head = (tmp_path / "a.png").read_bytes()[:24]
    assert head[:4] == b"\x89PNG" and int.from_bytes(head[16:20], "big") == 1600
    units = {a.get_ylabel() for a in figure.axes}
    assert {"rad", "pm", "$10^{-3}$", "counts"} <= units


def test_a_result_stands_under_its_trust(rng):
    doubts = "found, with doubts: misfit 9.38e-03, photon noise 8.82e-03: " + "the conjugate twin fits as well; " * 6
    stored = dataclasses.replace(full(rng), trust=doubts.strip(), verdict="found, with doubts")
    title = plot.result_figure(stored).get_suptitle()
    assert title.replace("\n", " ") == f"trust: {doubts.strip()}" and "\n" in title
    assert plot.result_figure(full(rng)).get_suptitle() == ""


def test_a_bare_crystal_says_what_is_missing(tmp_path, rng):
    figure = plot.result_figure(io.StoredResult(S=crystal(rng)))
    text = titles(figure)
    assert text.count("not in the file") == 7 and "voxels" in text
    plot.save(figure, tmp_path / "b.png")


def test_the_comparison_prints_the_phase_error_without_a_constant_phase(tmp_path, rng):
    truth = crystal(rng)
    twisted = truth * np.exp(0.3j * np.sign(np.arange(12) - 5.5))[:, None, None]
    figure = plot.comparison_figure(
        truth, twisted, truth * np.exp(1j), voxel=(5e-9,) * 3, rocking_angles=np.arange(4.0),
        rocking={"measured": np.ones(4), "dynamical": np.ones(4)}, loss=np.array([2.0, 1.0]),
    )  # fmt: skip
    text = titles(figure)
    assert "phase error, kinematic: rms 0.29" in text or "phase error, kinematic: rms 0.3" in text
    dynamical = float(text.split("phase error, dynamical: rms ")[1].split(" ")[0])
    assert dynamical < 1e-6  # float32 rounding of the crystal
    plot.save(figure, tmp_path / "c.png")


def test_bad_input_is_named(rng):
    with pytest.raises(ValueError, match="S: expected a crystal, got zeros only"):
        plot.result_figure(io.StoredResult(S=np.zeros((4, 4, 4), complex)))
    S = crystal(rng)
    with pytest.raises(ValueError, match="kinematic: expected shape"):
        plot.comparison_figure(S, S[1:], S, voxel=(5e-9,) * 3)
    with pytest.raises(ValueError, match="voxel: expected 3 numbers"):
        plot.comparison_figure(S, S, S, voxel=(5e-9,) * 2)
