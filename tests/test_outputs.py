"""No command writes over what it reads, over another of its outputs, or over a file of another kind."""

import os
import threading
from contextlib import nullcontext
from pathlib import Path

import h5py
import kills
import numpy as np
import pendel
import pytest
from matplotlib.figure import Figure
from pendel import io
from pendel.analysis import plot
from pendel.app import config
from pendel.app.cli import main
from pendel.base import files
from pendel.fit import checkpoint_file
from pendel.io import kinds

CONFIG = (
    (kills.CONFIG + kills.METHODS["adam"]).replace("epochs = 60", "epochs = 2").replace('{path = "scan.cxi"}', "{}")
)


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    path = tmp_path_factory.mktemp("scan") / "scan.cxi"
    kills.write_scan(path)
    return path.read_bytes()


@pytest.fixture
def folder(tmp_path, scan, monkeypatch):
    (tmp_path / "scan.cxi").write_bytes(scan)
    (tmp_path / "run.toml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def reconstruct(*more, output="r.cxi", data="scan.cxi"):
    return main(["reconstruct", "run.toml", "--data", str(data), "-o", str(output), "--quiet", *more])


@pytest.fixture
def refused(folder, capsys, monkeypatch):
    """Asks that a command is refused before any work with all files as they were; gives what it says."""

    def refused(command):
        before = contents(folder)
        with monkeypatch.context() as patched:
            patched.setattr("pendel.app.config.Config.scan", None)
            status = command()
        said = capsys.readouterr().err
        assert status == 2 and contents(folder) == before, said
        return said

    return refused


def np_file(name, key):
    """A mask or background in a file that the configuration names."""
    np.save(name, np.ones((24, 24), bool if key == "data.mask" else float))
    return f'{key}="{name}"'


@pytest.mark.parametrize("link", [None, os.link, os.symlink])
@pytest.mark.parametrize(
    "key", ["--data", "run.toml", "data.mask", "data.background", "start.path", "crystal.material"]
)
def test_what_is_read_is_not_written(folder, refused, key, link):
    more = []
    if key in ("data.mask", "data.background"):
        more, path = ["--set", np_file("given.npy", key)], "given.npy"
    elif key in ("start.path", "crystal.material"):
        (folder / "given").write_text("text")
        more, path = ["--set", f'{key}="given"'], "given"
    else:
        path = "scan.cxi" if key == "--data" else key
    if link is not None:
        link(folder / path, folder / "other name")
        path = "other name"
    checkpoint = ["--set", f'recipe.checkpoint="{path}"']
    for force in ([], ["--force"]):
        said = refused(lambda force=force: reconstruct(*more, *force, output=path))
        assert "-o: expected another file than" in said
        said = refused(lambda force=force: reconstruct(*more, *checkpoint, *force))
        assert "recipe.checkpoint: expected another file than" in said


def test_none_of_several_scans_is_written(folder, refused):
    (folder / "again.cxi").write_bytes((folder / "scan.cxi").read_bytes())
    scans = ["--set", 'data.path=["scan.cxi", "again.cxi"]']
    for name in ("scan.cxi", "again.cxi"):
        said = refused(lambda name=name: main(["reconstruct", "run.toml", *scans, "-o", name, "--quiet", "--force"]))
        assert "-o: expected another file than data.path reads" in said


def test_outputs_are_not_written_over_one_another(folder, refused):
    said = refused(lambda: reconstruct("--set", 'recipe.checkpoint="r.cxi"'))
    assert "recipe.checkpoint: expected another file than -o" in said
    said = refused(lambda: reconstruct("--set", "output.pictures=true", output="r.png"))
    assert "output.pictures: expected another file than -o" in said
    os.symlink("r.cxi", "link.h5")
    assert "expected another file" in refused(lambda: reconstruct("--set", 'recipe.checkpoint="link.h5"'))


def test_files_that_the_data_lead_to_are_not_written(folder, refused):
    (folder / "raw").mkdir()
    os.rename("scan.cxi", "raw/frames.h5")
    with h5py.File("scan.cxi", "w") as file:
        file["entry_1/data_1/data"] = h5py.ExternalLink("raw/frames.h5", "entry_1/data_1/data")
    with h5py.File("master.cxi", "w") as file:
        layout = h5py.VirtualLayout((24, 24, 24), np.int32)
        layout[:] = h5py.VirtualSource("raw/frames.h5", "entry_1/data_1/data", (24, 24, 24))
        file.create_virtual_dataset("entry_1/data_1/data", layout)
    for data in ("scan.cxi", "master.cxi"):
        said = refused(lambda data=data: reconstruct("--force", output="raw/frames.h5", data=data))
        assert "which belongs to it" in said
    said = refused(lambda: reconstruct("--force", output="raw/frames.h5", data="raw"))
    assert "which belongs to it" in said


def test_files_of_links_are_found_where_the_reader_finds_them(folder):
    (folder / "there").mkdir()
    os.rename("scan.cxi", "there/frames.h5")
    with h5py.File("there/master.cxi", "w") as file:  # made on another machine
        file["entry_1/data_1/data"] = h5py.ExternalLink("/of/another/frames.h5", "entry_1/data_1/data")
    os.symlink("there/master.cxi", "scan.cxi")
    assert io.read_scan("scan.cxi").data.any()
    assert [path.resolve() for path in kinds.linked_files("scan.cxi")] == [folder / "there" / "frames.h5"]


def test_what_is_read_beside_the_data_is_not_written(folder, refused):
    np.savez("S1_pynx_a.npz", data=np.ones((24, 24, 24), int))
    np.savez("S1_maskpynx_a.npz", mask=np.zeros((24, 24, 24), int))
    said = refused(lambda: reconstruct("--force", output="S1_maskpynx_a.npz", data="S1_pynx_a.npz"))
    assert "which belongs to it" in said
    (folder / "scan_S0001").mkdir()
    for name in ("dark.tif", "whitefield.tif", "a.spec"):
        (folder / name).write_bytes(b"II*")
        said = refused(lambda name=name: reconstruct("--force", output=name, data="scan_S0001"))
        assert "which belongs to it" in said


def test_a_file_of_another_kind_is_replaced_if_asked_for(folder, refused, capsys):
    (folder / "r.cxi").write_text("notes")
    assert "-o: expected a new file, or an old result of pendel to replace" in refused(reconstruct)
    with h5py.File("r.cxi", "w") as file:
        file["entry_1/image_1/data"] = np.ones(3)
    assert "HDF5 file of another program" in refused(reconstruct)
    (folder / "r.cxi").write_bytes((folder / "scan.cxi").read_bytes())
    assert "got a scan" in refused(reconstruct)
    (folder / "r.cxi").unlink()
    (folder / "r.png").write_bytes(b"\x89PNG of somebody else")
    with_picture = ["--set", "output.pictures=true"]
    assert "output.pictures: expected a new file" in refused(lambda: reconstruct(*with_picture))
    assert reconstruct(*with_picture, "--force") == 0
    assert reconstruct(*with_picture) == 0  # over the old result, picture and checkpoint
    found = {path.name: kinds.kind_of(path) for path in folder.iterdir() if path.name.startswith("r.")}
    assert found == {"r.cxi": kinds.RESULT, "r.png": kinds.PICTURE, "r.checkpoint.h5": kinds.CHECKPOINT}
    (folder / "r.cxi").write_bytes(b"")  # made by mktemp
    assert reconstruct() == 0


def test_other_commands_do_the_same(folder, refused):
    assert reconstruct() == 0
    assert "another file than RESULT.cxi" in refused(lambda: main(["view", "r.cxi", "-o", "r.cxi"]))
    (folder / "photo.png").write_bytes(b"\x89PNG")
    assert "-o: expected a new file" in refused(lambda: main(["view", "r.cxi", "-o", "photo.png"]))
    for output in ("scan.cxi", "r.cxi", "run.toml"):
        refused(lambda output=output: main(["simulate", "run.toml", "-o", output]))
    (folder / "demo").mkdir()
    (folder / "demo" / "data.cxi").write_bytes((folder / "scan.cxi").read_bytes())
    said = refused(lambda: main(["demo", "-o", "demo", "--size", "24"]))
    assert "-o (data.cxi): expected a new file, or an old simulated scan" in said
    with h5py.File("r.cxi") as file:  # another command reads it
        assert kinds.kind_of(file.filename) == kinds.RESULT


@pytest.mark.parametrize("ending", ["png", "pdf", "svg", "svgz", "eps", "jpg", "tif", "webp", "gif"])
def test_old_pictures_are_known_by_what_they_hold(folder, ending, monkeypatch):
    if ending not in Figure().canvas.get_supported_filetypes():
        pytest.skip(f"matplotlib here writes no {ending}")
    plot.save(Figure(), folder / f"r.{ending}", dpi=20)
    assert kinds.kind_of(folder / f"r.{ending}") == kinds.PICTURE


def test_a_run_is_refused_where_nothing_can_be_written(folder, refused):
    for output in ("/proc/r.cxi", "/dev/null", "/dev/full", "nowhere/r.cxi", "."):
        assert "-o: " in refused(lambda output=output: reconstruct(output=output))
    os.mkfifo("pipe")
    assert "-o: " in refused(lambda: reconstruct(output="pipe"))


def test_files_that_cannot_be_looked_into_have_a_kind(folder, monkeypatch):
    (folder / "cut.cxi").write_bytes((folder / "scan.cxi").read_bytes()[:3000])
    assert kinds.kind_of("cut.cxi") == kinds.FOREIGN
    with pytest.raises(FileExistsError, match="cut.cxi: expected a new file"):
        io.write_result("cut.cxi", S=np.ones((3, 3, 3), complex), voxel=(1e-9,) * 3)
    (folder / "a.svgz").write_bytes(b"\x1f\x8b\x08" + bytes(7) + b"damaged")
    (folder / "large.raw").write_bytes(b"pendel 1" * 1000)
    monkeypatch.setattr(kinds, "LARGEST_PICTURE", 4000)
    assert kinds.kind_of("a.svgz") == kinds.kind_of("large.raw") == kinds.OTHER


def test_writers_of_python_do_not_replace_data(folder):
    S = np.ones((3, 3, 3), complex)
    with pytest.raises(
        FileExistsError, match="scan.cxi: expected a new file, or an old result of pendel .* got a scan"
    ):
        io.write_result("scan.cxi", S=S, voxel=(1e-9,) * 3)
    io.write_result("r.cxi", S=S, voxel=(1e-9,) * 3)
    io.write_result("r.cxi", S=S, voxel=(1e-9,) * 3)
    with pytest.raises(FileExistsError, match="r.cxi: expected a new file, or an old scan of pendel .* got a result"):
        io.write_scan("r.cxi", np.ones((3, 4, 4)), distance=1.0, pixel_size=1e-5, energy=1e-15)
    io.write_result("scan.cxi", S=S, voxel=(1e-9,) * 3, force=True)
    assert kinds.kind_of("scan.cxi") == kinds.RESULT


@pytest.mark.parametrize("what", ["HDF5", "text", "picture", "checkpoint"])
def test_writers_of_python_replace_their_own_kind_alone(folder, what):
    """As the command line does without --force."""
    path = folder / "mine.png"
    if what == "HDF5":
        with h5py.File(path, "w") as file:
            file["entry_1/data_1/data"] = np.ones((3, 4, 4))
    elif what == "picture":
        plot.save(Figure(), path, dpi=20)
    elif what == "checkpoint":
        checkpoint_file.write(path, "reconstruct", {}, {})
    else:
        path.write_text("notes")
    before, beam = path.read_bytes(), {"distance": 1.0, "pixel_size": 1e-5, "energy": 1e-15}
    writers = {
        "scan": lambda **force: io.write_scan(path, np.ones((3, 4, 4)), **beam, **force),
        "result": lambda **force: io.write_result(path, S=np.ones((3, 3, 3), complex), voxel=(1e-9,) * 3, **force),
        "picture": lambda **force: plot.save(Figure(), path, dpi=20, **force),
        "checkpoint": lambda: checkpoint_file.write(path, "reconstruct", {}, {}),
    }
    for kind in set(writers) - {what}:
        with pytest.raises(FileExistsError, match=f"mine.png: expected a new file, or an old {kind}"):
            writers[kind]()
    refusal = pytest.raises(FileExistsError, match="checkpoint: expected a new file")
    with nullcontext() if what == "checkpoint" else refusal, checkpoint_file.claimed(path):
        pass
    assert path.read_bytes() == before
    if what in writers:
        writers[what]()  # again over the old one
    for kind in ("picture", "result", "scan"):
        writers[kind](force=True)
        writers[kind]()
        assert kinds.kind_of(path) == getattr(kinds, kind.upper())


def test_a_fit_is_refused_before_it_begins_where_its_checkpoint_would_replace_something(folder):
    (folder / "notes.txt").write_text("notes")
    made = config.load("run.toml")
    scan = made.scan("scan.cxi")
    model = made.make_model(made.experiment(scan), (16, 16, 16), made.voxel(made.experiment(scan)))
    for fit in (pendel.reconstruct, pendel.multiscale):
        with pytest.raises(FileExistsError, match="checkpoint: expected a new file, or an old checkpoint .* it away$"):
            fit(model, scan.data, checkpoint="notes.txt")
    assert (folder / "notes.txt").read_text() == "notes"
    (folder / "r.checkpoint.h5").write_text("notes")
    assert reconstruct() == 2
    assert reconstruct("--force") == 0
    assert kinds.kind_of("r.checkpoint.h5") == kinds.CHECKPOINT


def test_two_runs_do_not_write_into_one_file(folder, capsys):
    """The second is refused before any work, whichever of the outputs they share."""
    long = "r" * 250 + ".cxi"  # as long as names may be

    def second(command, taken, option):
        said = []

        def run():
            said.append((main(command), capsys.readouterr().err))

        with files.claimed(taken, "first"):
            thread = threading.Thread(target=run)
            thread.start()
            thread.join()
        [(status, text)] = said
        assert status == 2 and f"{option}: expected a file that no other run writes, got" in text, text
        assert not Path(taken).exists() and not list(folder.rglob("*.lock"))

    command = ["reconstruct", "run.toml", "--data", "scan.cxi", "--quiet", "--set", "output.pictures=true", "-o"]
    second([*command, "r.cxi"], "r.cxi", "-o")
    second([*command, "./r.cxi"], folder / "r.png", "output.pictures")
    second([*command, "r.cxi"], "r.checkpoint.h5", "recipe.checkpoint")
    second([*command, long, "--set", 'recipe.checkpoint="c.h5"'], long, "-o")
    second(["simulate", "run.toml", "-o", "s.cxi"], "s.cxi", "-o")
    (folder / "demo").mkdir()
    second(["demo", "--size", "24", "-o", "demo"], "demo/result.png", "-o (result.png)")
    assert reconstruct() == 0 and not list(folder.rglob("*.lock"))
