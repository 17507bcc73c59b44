"""Results as VTK image data: read back by hand, and by VTK where it is installed."""

import base64
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from pendel import io

FRAME = np.array([[0.8, 0, -0.6], [0, 1, 0], [0.6, 0, 0.8]])


@pytest.fixture
def stored(rng):
    S = (rng.random((3, 4, 5)) * np.exp(1j * rng.uniform(-3, 3, (3, 4, 5)))).astype(np.complex64)
    maps = {"displacement": rng.normal(size=S.shape) * 1e-11, "support": np.abs(S) > 0.5}
    return io.StoredResult(S=S, voxel=(2e-8, 1e-8, 1.5e-8), frame=FRAME, **maps)


def test_every_array_is_there_with_x_fastest(tmp_path, stored):
    path = tmp_path / "crystal.vti"
    io.write_vti(path, stored)
    image = ElementTree.parse(path).getroot().find("ImageData")
    assert image.get("WholeExtent") == "0 4 0 3 0 2" and image.get("Spacing") == "15 10 20"
    direction = np.reshape(image.get("Direction").split(), (3, 3)).astype(float)
    assert np.allclose(direction, FRAME.T)
    # VTK turns what it adds to the origin: the middle of every crystal is at 0, whatever its frame
    middle = np.array(image.get("Origin").split(), float) + direction @ (np.array((2, 2, 1)) * (15, 10, 20))
    assert np.allclose(middle, 0, atol=1e-6)
    found = {}
    for array in image.iter("DataArray"):
        content = base64.b64decode(array.text)
        assert int.from_bytes(content[:8], "little") == len(content) - 8 == 240
        found[array.get("Name")] = np.frombuffer(content[8:], "<f4").reshape(3, 4, 5)
    assert list(found) == ["amplitude", "phase_rad", "displacement_pm", "support"]  # no strain in the result
    assert np.allclose(found["amplitude"], np.abs(stored.S)) and np.allclose(found["phase_rad"], np.angle(stored.S))
    assert np.allclose(found["displacement_pm"], 1e12 * stored.displacement, rtol=1e-6)
    assert np.array_equal(found["support"], stored.support)


def test_vtk_reads_it(tmp_path, stored):
    vtk = pytest.importorskip("vtk")
    from vtk.util.numpy_support import vtk_to_numpy

    io.write_vti(tmp_path / "crystal.vti", stored)
    reader = vtk.vtkXMLImageDataReader()
    reader.SetFileName(str(tmp_path / "crystal.vti"))
    reader.Update()
    image = reader.GetOutput()
    assert image.GetDimensions() == (5, 4, 3) and image.GetSpacing() == (15, 10, 20)
    direction = image.GetDirectionMatrix()
    assert np.allclose([[direction.GetElement(i, j) for j in range(3)] for i in range(3)], FRAME.T)
    values = vtk_to_numpy(image.GetPointData().GetArray("amplitude")).reshape(3, 4, 5)
    assert np.allclose(values, np.abs(stored.S))


def test_nothing_is_lost(tmp_path, stored):
    path = tmp_path / "crystal.vti"
    path.write_text("mine")
    with pytest.raises(FileExistsError):
        io.write_vti(path, stored)
    assert path.read_text() == "mine"
    io.write_vti(path, stored, force=True)
    io.write_vti(path, stored)  # an old one of pendel
    with pytest.raises(ValueError, match="voxel: expected a result that knows its voxel"):
        io.write_vti(path, io.StoredResult(S=stored.S))
    with pytest.raises(TypeError, match="result: expected a StoredResult"):
        io.write_vti(path, stored.S)
    with pytest.raises(ValueError, match=r"^strain: expected shape \(3, 4, 5\), as S, got \(2, 2, 2\)"):
        io.write_vti(path, io.StoredResult(S=stored.S, voxel=stored.voxel, strain=np.ones((2, 2, 2))))
    with pytest.raises(ValueError, match=r"^result \(S\): expected shape \(nz, ny, nx\)"):
        io.write_vti(path, io.StoredResult(S=stored.S[0], voxel=stored.voxel))
