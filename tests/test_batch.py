"""`pendel batch`: a campaign is run to its end whatever ends it in between, and its table says what there is.

Many scans instead of these few: tests/campaigns.py.
"""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import campaigns
import h5py
import kills
import numpy as np
import pytest
from pendel import io
from pendel.app import campaign as files_of
from pendel.app import config
from pendel.app.cli import main
from pendel.app.errors import ConfigError
from pendel.app.jobs import Contents, gives_start

CHAIN = campaigns.TOML + "start_from_last = true\n"
LONG = 100_000  # epochs that no test waits for


@pytest.fixture
def campaign(tmp_path):
    """Maker of a campaign; keywords as of `campaigns.Campaign`."""

    def campaign(scans=3, **options):
        return campaigns.Campaign(tmp_path / "campaign", scans, **options)

    return campaign


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A campaign of three scans that is through; nothing may change it."""
    made = campaigns.Campaign(tmp_path_factory.mktemp("finished") / "campaign", 3)
    assert main(["batch", str(made.toml), "--quiet"]) == 0
    return made


@pytest.fixture
def copied(finished, tmp_path):
    """The same, to be changed."""
    made = object.__new__(campaigns.Campaign)
    made.folder = tmp_path / "copied"
    shutil.copytree(finished.folder, made.folder)
    made.toml = made.folder / "campaign.toml"
    return made


def states(made):
    return {f"{row['configuration']}/{row['scan']}": row["state"] for row in made.table()}


def attempts(made, *names):
    return [len(made.log(name)) for name in names]


def until(condition, seconds=60):
    """Wait for something that has to happen."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_campaign_killed_twice_runs_every_scan_once(campaign):
    made = campaign(6, epochs=20, text=campaigns.TOML + "workers = 2\n")
    assert not made.kill(signal.SIGKILL, 1, 0.0) + made.kill(signal.SIGTERM, 3, 0.3)
    status, out, err = made.run()
    assert (status, err) == (0, "") and "written to" in out
    assert not made.problems()
    assert [row["scan"] for row in made.table()] == [f"scan_{i}" for i in range(1, 7)]
    assert made.has_bits_of("scan_4", made.alone("scan_4"))


def test_the_table_tells_of_all_jobs_in_three_formats(finished):
    assert not finished.problems()
    row = finished.table()[1]
    assert row["scan"] == "scan_2" and row["trust"] == row["message"] == "" and row["result"] == "run/scan_2.cxi"
    assert float(row["strain_min"]) < 0 < float(row["strain_max"]) and row["epochs"] == "3"
    page = (finished.output / "summary.html").read_text()
    assert "http" not in page and "<script src" not in page and "run/scan_2.cxi" in page


def test_what_is_done_is_not_run_again_and_a_new_scan_changes_no_other(copied):
    (copied.folder / "data" / "scan_0.cxi").write_bytes((copied.folder / "data" / "scan_3.cxi").read_bytes())
    assert main(["batch", str(copied.toml), "--quiet"]) == 0
    assert attempts(copied, "run/scan_0", "run/scan_1", "run/scan_2", "run/scan_3") == [1, 1, 1, 1]
    zeroth, third = (io.read_result(copied.output / "run" / f"scan_{i}.cxi") for i in (0, 3))
    assert kills.same(zeroth, third) and not copied.problems()


def test_a_campaign_may_be_moved_and_its_files_copied(copied, capsys):
    for path in copied.folder.rglob("*.cxi"):
        os.utime(path, (1, 1))  # as a copy that keeps no times
    assert main(["batch", str(copied.toml), "--dry-run"]) == 0
    assert "3 jobs: 3 done" in capsys.readouterr().out


def test_a_bad_scan_is_named_and_the_others_go_on(campaign, capsys):
    made = campaign(3)
    (made.folder / "data" / "scan_2.cxi").write_bytes(b"no scan")
    assert main(["batch", str(made.toml)]) == 1
    out, err = capsys.readouterr()
    assert "pendel: error: 1 of 3 jobs failed: run/scan_2; why is in the table, and in" in err
    assert "[3/3] run/scan_3: done in" in out and "Traceback" not in err
    assert states(made) == {"run/scan_1": "done", "run/scan_2": "failed", "run/scan_3": "done"}
    row = made.table()[1]
    assert "scan_2.cxi" in row["message"] and row["message"] in err and row["misfit"] == row["result"] == ""
    assert not made.different_tables()
    # it is tried again, the others are not
    (made.folder / "data" / "scan_2.cxi").write_bytes((made.folder / "data" / "scan_1.cxi").read_bytes())
    assert main(["batch", str(made.toml), "--quiet"]) == 0
    assert attempts(made, "run/scan_1", "run/scan_2", "run/scan_3") == [1, 2, 1]
    assert set(states(made).values()) == {"done"}


def test_a_run_that_dies_is_told_and_goes_on_from_its_checkpoint(campaign):
    made = campaign(2, epochs=300)
    process = made.start("--quiet")
    until((made.output / "run" / "scan_1.checkpoint.h5").exists)
    text = (made.folder / "run.toml").read_text()
    (made.folder / "run.toml").write_text("nothing that a campaign at work looks at again")
    (run,) = made.runs()
    os.kill(run, signal.SIGKILL)
    _, err = process.communicate()
    assert process.returncode == 1 and "1 of 2 jobs failed: run/scan_1" in err
    assert made.table()[0]["message"].startswith("ended by SIGKILL, as where memory runs out")
    (made.folder / "run.toml").write_text(text)
    assert main(["batch", str(made.toml), "--quiet"]) == 0
    (_, second), (scan_2,) = made.log("run/scan_1"), made.log("run/scan_2")
    assert "--resume" in second[0] and "going on from" in second[1] and "--resume" not in scan_2[0]
    assert not made.problems()


def test_a_signal_ends_all_runs_with_their_checkpoints(campaign):
    made = campaign(3, epochs=LONG, text=campaigns.TOML + "workers = 2\n")
    process = made.start("--quiet")
    until(lambda: all((made.output / "run" / f"scan_{i}.checkpoint.h5").exists() for i in (1, 2)))
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM and err.splitlines()[-1] == "pendel: error: interrupted"
    assert not made.runs() and list(states(made).values()) == ["interrupted", "interrupted", "new"]
    assert not made.different_tables()


def test_results_of_another_configuration_are_told_and_kept_unless_forced(copied, capsys):
    run, first = copied.folder / "run.toml", copied.output / "run" / "scan_1.cxi"
    before = first.read_bytes()
    text = run.read_text()
    run.write_text(f"# what is no key changes nothing\n{text.replace('threads = 1', 'threads = 2')}")
    assert main(["batch", str(copied.toml), "--quiet"]) == 0
    run.write_text(text.replace("epochs = 3", "epochs = 4"))
    assert main(["batch", str(copied.toml), "--quiet"]) == 2
    err = capsys.readouterr().err
    assert "output: expected results of this campaign, got 3 of another one: run/scan_1, run/scan_2, run/scan_3" in err
    assert "recipe.epochs was 3 and is 4" in err and first.read_bytes() == before
    run.write_text(text)
    (copied.folder / "data" / "scan_1.cxi").write_bytes((copied.folder / "data" / "scan_2.cxi").read_bytes())
    assert main(["batch", str(copied.toml), "--quiet"]) == 2
    assert "1 of another one: run/scan_1 (the scan's files hold something else)" in capsys.readouterr().err
    assert main(["batch", str(copied.toml), "--quiet", "--force"]) == 0
    assert attempts(copied, "run/scan_1", "run/scan_2", "run/scan_3") == [2, 1, 1]
    one, two = (io.read_result(copied.output / "run" / f"scan_{i}.cxi") for i in (1, 2))
    assert kills.same(one, two)


def test_results_that_no_record_tells_of_are_not_replaced(copied, capsys):
    (copied.output / "run" / "scan_2.job.json").unlink()
    assert main(["batch", str(copied.toml), "--dry-run"]) == 0
    assert "run/scan_2  stale: a result that no record tells of" in capsys.readouterr().out
    shutil.copy(copied.output / "run" / "scan_2.cxi", copied.output / "run" / "scan_3.cxi")
    (copied.output / "run" / "scan_1.job.json").write_text("mine")
    assert main(["batch", str(copied.toml)]) == 2
    assert "output: expected a record of pendel batch, got" in capsys.readouterr().err
    (copied.output / "run" / "scan_1.job.json").unlink()
    (copied.output / "run" / "scan_1.cxi").unlink()
    assert main(["batch", str(copied.toml)]) == 2
    assert "got 2 of another one: run/scan_2, run/scan_3" in capsys.readouterr().err


def test_tables_of_others_are_not_replaced(campaign, capsys):
    made = campaign(1)
    made.output.mkdir()
    for name in ("summary.csv", "summary.html"):
        (made.output / name).write_text("mine")
        assert main(["batch", str(made.toml)]) == 2
        assert f"output: expected a new file, or an old summary of pendel to replace, got another: {made.output}" in (
            capsys.readouterr().err
        )
        (made.output / name).unlink()
    assert not (made.output / "run").exists()


def test_campaigns_at_work_on_one_folder_share_its_jobs(campaign):
    made = campaign(4)
    processes = [made.start("--quiet") for _ in range(2)]
    ended = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], ended
    assert attempts(made, *(f"run/scan_{i}" for i in range(1, 5))) == [1] * 4 and not made.problems()


def test_jobs_of_others_are_left_alone(campaign, monkeypatch, capsys):
    made = campaign(1, epochs=LONG)
    monkeypatch.setattr("pendel.app.workers.PATIENCE", 0.5)
    process = made.start("--quiet")
    try:
        until(lambda: (made.output / "run" / "scan_1.checkpoint.h5").exists())
        assert main(["batch", str(made.toml), "--dry-run"]) == 0
        assert "run/scan_1  running" in capsys.readouterr().out
        assert main(["batch", str(made.toml)]) == 1
        assert "1 of 1 jobs are run by others, and not done yet: run/scan_1" in capsys.readouterr().err
    finally:
        process.terminate()
        process.communicate()
    assert attempts(made, "run/scan_1") == [1]


def test_shares_are_all_jobs_once(copied, capsys):
    found = []
    for i in (1, 2):
        assert main(["batch", str(copied.toml), "--dry-run", "--jobs", f"{i}/2"]) == 0
        found += [line.split()[0] for line in capsys.readouterr().out.splitlines()[:-1]]
    assert sorted(found) == ["run/scan_1", "run/scan_2", "run/scan_3"]
    assert main(["batch", str(copied.toml), "--quiet", "--jobs", "4/4"]) == 0
    for wrong in ("0/2", "3/2", "1", "a/b"):
        assert main(["batch", str(copied.toml), "--jobs", wrong]) == 2
        assert "--jobs: expected I/N with 1 <= I <= N" in capsys.readouterr().err


def test_a_script_for_a_job_array_runs_one_share(campaign, capsys):
    made = campaign(2, text=campaigns.TOML + "workers = 1\n")
    script = made.folder / "job's.sh"
    assert main(["batch", str(made.toml), "--slurm", str(script)]) == 0
    assert "written to" in capsys.readouterr().out and not made.output.exists()
    text = script.read_text()
    assert "#SBATCH --array=1-2\n" in text and "#SBATCH --cpus-per-task=1\n" in text
    assert main(["batch", str(made.toml), "--slurm", str(script)]) == 2
    assert "--slurm: expected a new file" in capsys.readouterr().err
    environment = os.environ | {"SLURM_ARRAY_TASK_ID": "2", "PYTHONPATH": os.pathsep.join(filter(None, os.sys.path))}
    subprocess.run(["bash", str(script)], check=True, env=environment, capture_output=True)
    assert list(states(made).values()) == ["new", "done"]


def test_every_scan_begins_with_the_last_that_was_found(campaign, capsys):
    made = campaign(4, text=CHAIN)
    good = (made.folder / "data" / "scan_2.cxi").read_bytes()
    (made.folder / "data" / "scan_2.cxi").write_bytes(b"no scan")
    assert main(["batch", str(made.toml), "--quiet"]) == 1
    rows = made.table()
    assert [row["start"] for row in rows] == ["", "run/scan_1", "run/scan_1", "run/scan_3"]
    assert [row["state"] for row in rows] == ["done", "failed", "done", "done"] and not made.different_tables()
    second = io.read_result(made.output / "run" / "scan_3.cxi")
    assert second.metadata["start"]["kind"] == "file, resampled" and made.has_bits_of("scan_1", made.alone("scan_1"))
    assert second.loss["misfit"][0] < 0.8 * made.alone("scan_3").loss["misfit"][0]  # it begins where the other ended

    # what began with another scan than it would now is told; forced, all is as if nothing had been wrong
    capsys.readouterr()
    (made.folder / "data" / "scan_2.cxi").write_bytes(good)
    assert main(["batch", str(made.toml), "--quiet"]) == 1
    assert "2 of 4 jobs are stale (--force runs them again): run/scan_3, run/scan_4" in capsys.readouterr().err
    assert "it began with run/scan_1 and would now with run/scan_2" in made.table()[2]["message"]
    assert main(["batch", str(made.toml), "--quiet", "--force"]) == 0
    assert [row["start"] for row in made.table()] == ["", *(f"run/scan_{i}" for i in (1, 2, 3))]
    whole = campaigns.Campaign(made.folder.parent / "whole", 4, text=CHAIN)
    assert main(["batch", str(whole.toml), "--quiet", "--workers", "2"]) == 0
    for i in range(1, 5):
        assert made.has_bits_of(f"scan_{i}", io.read_result(whole.output / "run" / f"scan_{i}.cxi"))


def test_what_was_not_found_is_no_start():
    for trust, expected in (("found", True), ("found, with doubts", True), ("", True), ("not found", False)):
        assert gives_start({"state": "done", "row": {"trust": trust}}) is expected
    assert not gives_start({"state": "failed", "row": {}}) and not gives_start({})


SETS = """output = "results"
threads = 1
workers = 2

[configuration.few]
path = "run.toml"

[configuration.more]
path = "run.toml"
set.recipe.epochs = 5

[[scans]]
path = "data/scan_1.cxi"
labels = {temperature = 300, sample = "a"}

[[scans]]
path = "data/scan_2.cxi"
name = "hot"
labels.temperature = 700
set.recipe.seed = 7
"""


def test_labels_and_sets_of_keys_go_into_table_and_runs(campaign):
    made = campaign(2, text=SETS)
    assert main(["batch", str(made.toml), "--quiet"]) == 0
    rows = {f"{row['configuration']}/{row['scan']}": row for row in made.table()}
    assert list(rows) == ["few/scan_1", "few/hot", "more/scan_1", "more/hot"]
    assert [row["temperature"] for row in rows.values()] == ["300", "700"] * 2
    assert [row["sample"] for row in rows.values()] == ["a", ""] * 2
    assert [row["epochs"] for row in rows.values()] == ["3", "3", "5", "5"]
    assert io.read_result(made.output / "more" / "hot.cxi").metadata["seed"] == 7
    with h5py.File(made.output / "summary.h5") as file:
        assert file.attrs["default"] == "entry" and file["entry"].attrs["NX_class"] == "NXentry"
        group = file["entry/summary"]
        assert group.attrs["NX_class"] == "NXdata" and group.attrs["signal"] in group
        assert list(group["temperature"]) == [300, 700, 300, 700] and group["size_z_nm"].attrs["units"] == "nm"


WRONG = {
    "outptu = 'x'": "outptu: expected a known key, got 'outptu'; did you mean output?",
    "workers = 0": "workers: expected an integer >= 1, got 0",
    "start_from_last = 1": "start_from_last: expected true or false, got 1",
    "configuration = 3": "configuration: expected text, got 3",
    "configuration = 'none.toml'": "configuration: none.toml: expected a TOML file, got no such file",
    "configuration = 'data/scan_1.cxi'": "configuration: data/scan_1.cxi: expected",
    "configuration = ['run.toml', 'run.toml']": "configuration: expected names of their own, got run twice",
    "configuration.a = {pth = 'run.toml'}": "configuration.a.pth: expected a known key, got 'pth'; did you mean"
    " configuration.a.path?",
    "configuration.a = {path = 'run.toml', set.recipe.epoch = 3}": "a/scan_1: recipe.epoch: expected a known key, got"
    " 'epoch'; did you mean recipe.epochs?",
    "configuration.a = {path = 'run.toml', set.recipe = 3}": "configuration.a.set: expected keys such as",
    "configuration = {'.a' = {path = 'run.toml'}}": "configuration..a: expected a name for files",
    "scans = 'data/none_*.cxi'": "scans: expected files or folders that match, got no such one",
    "scans = ['data/scan_9.cxi']": "scans[0]: expected a file or folder, got no such one",
    "scans = ['data/scan_1.cxi', 'data/scan_*.cxi']": "scans: expected every scan once, got",
    "scans = [{pat = 'data'}]": "scans[0].pat: expected a known key, got 'pat'; did you mean scans[0].path?",
    "scans = [{path = 'data/*', name = 'a'}]": "scans[0].name: expected a path of one scan, got a pattern of 2",
    "scans = [{path = ['data/scan_1.cxi']}]": "scans[0].name: expected a value, got none",
    "scans = [{path = 'data/scan_1.cxi', labels.misfit = 3}]": "scans.labels.misfit: expected a name that is no column",
    "scans = [{path = 'data/scan_1.cxi', labels.T = [3]}]": "scans[0].labels.T: expected a number or text, got [3]",
    "scans = [{path = 'data/scan_1.cxi', numbers = ['9-3']}]": "scans[0].numbers[0]: expected an integer, got '9-3'; or"
    " a range such as '12-40'",
    "scans = [{path = 'data/scan_1.cxi', set.recipe.epochs = 0}]": "run/scan_1: recipe.epochs: expected",
    "scans = 'results/*'": "scans: expected scans outside of the folder of the results, nor around it",
    "output = 'data/scan_1.cxi/results'": "scans: expected scans outside of the folder of the results, nor around it",
    "output = 'run.toml'": "output: expected a folder, got the file",
}


@pytest.mark.parametrize("line", WRONG)
def test_wrong_files_are_refused_before_anything_runs(campaign, capsys, monkeypatch, line):
    made = campaign(2)
    monkeypatch.chdir(made.folder)
    (made.folder / "results").mkdir()
    (made.folder / "results" / "a.cxi").write_bytes(b"")
    key = line.split()[0].split(".")[0]
    kept = [text for text in campaigns.TOML.splitlines() if not text.startswith(f"{key} ")]
    made.toml.write_text("\n".join([*kept, line]))
    assert main(["batch", "campaign.toml"]) == 2
    assert f"pendel: error: {WRONG[line]}" in capsys.readouterr().err
    assert [path.name for path in made.output.iterdir()] == ["a.cxi"]


def test_a_configuration_is_no_campaign(finished, capsys):
    run = finished.folder / "run.toml"
    assert main(["batch", str(run)]) == 2
    assert f"{run}: expected a campaign, got a configuration; pendel config --campaign" in capsys.readouterr().err
    assert main(["config", "--campaign"]) == 0
    listed = capsys.readouterr().out
    assert "#start_from_last = false" in listed and "[configuration.NAME]" in listed and "[[scans]]" in listed


def test_names_come_from_what_a_pattern_leaves_open(tmp_path):
    (tmp_path / "run.toml").write_text(kills.CONFIG)
    for name in ("S9/frames.h5", "S10/frames.h5", "day/T3.5K", "b[1].cxi", "many.h5"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "c.toml").write_text(
        'configuration = "run.toml"\noutput = "results"\n'
        'scans = ["S*/frames.h5", "day/*", "b[1].cxi", {path = "many.h5", numbers = ["8-9", 12]},'
        ' {path = ["S9/frames.h5", "S10/*"], name = "sum"}]'
    )
    made = files_of.load(tmp_path / "c.toml")
    names = ["S9-frames", "S10-frames", "T3.5K", "b[1]", "many_8", "many_9", "many_12", "sum"]
    assert [scan.name for scan in made.scans] == names
    assert made.jobs[2].file(files_of.RESULT).name == "T3.5K.cxi"
    assert made.jobs[6].made.data.scan == 12 and len(made.jobs[7].made.paths("data.path")) == 2
    assert made.jobs[0].made.paths("data.path") == [tmp_path / "S9" / "frames.h5"]


def test_what_is_set_arrives_as_it_was_given(tmp_path):
    text = 'quote \\" and \\\\ and é \\u0001 \\u007f'
    (tmp_path / "run.toml").write_text(kills.CONFIG)
    (tmp_path / "a.cxi").write_bytes(b"")
    (tmp_path / "c.toml").write_text(
        'output = "results"\nscans = "a.cxi"\n[configuration.one]\npath = "run.toml"\n[configuration.one.set]\n'
        f'crystal.name = "{text}"\ncrystal.polarization = {{sigma = 0.75, pi = 0.25}}\nmodel.bandwidth = 1e-20\n'
        'experiment.arm = [["y+", 1], ["x-", 2.5]]\nmodel.coherence_um = [inf, 7.0]\nsolve.strong = false\n'
    )
    (job,) = files_of.load(tmp_path / "c.toml").jobs
    assert job.made.crystal_keys.name == 'quote " and \\ and é \x01 \x7f' and job.made.solve.strong is False
    assert job.made.crystal_keys.polarization == {"sigma": 0.75, "pi": 0.25} and job.made.model.bandwidth == 1e-20
    assert job.made.model.coherence_um == (np.inf, 7.0) and job.made.experiment_keys.arm[1] == ("x-", 2.5)


def test_a_crystal_is_put_on_the_voxels_of_another_run(finished, tmp_path, capsys):
    first = finished.output / "run" / "scan_1.cxi"
    base = ["reconstruct", str(finished.folder / "run.toml"), "--data", str(finished.folder / "data" / "scan_1.cxi")]
    base += ["-o", str(tmp_path / "r.cxi"), "--quiet", "--set", 'start.kind="file"', "--set", f'start.path="{first}"']
    base += ["--set", "recipe.learning_rate=1e-9", "--set", "recipe.epochs=1"]
    halves = [5e8 * step for step in io.read_result(first).voxel]
    voxels = ["--set", f"model.voxel_nm={halves}", "--set", "model.shape=[32, 32, 32]"]
    assert main([*base, *voxels]) == 2
    assert "start.path: expected a crystal on voxels" in capsys.readouterr().err
    assert main([*base, *voxels, "--set", "start.resample=true"]) == 0
    one, other = io.read_result(first), io.read_result(tmp_path / "r.cxi")
    assert other.S.shape == (32, 32, 32)
    # every second voxel has the place of a wider one; of the wider one's own size to 5e-5
    assert np.abs(other.S[::2, ::2, ::2] - np.where(one.support, one.S, 0)).max() < 2e-3
    assert main([*base, "--set", "start.resample=true", "--set", "experiment.two_theta_deg=60"]) == 2
    assert "start.path: expected a crystal in about the model frame of this experiment" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="start.resample: expected true or false, got 1"):
        config.loads("start.resample = 1")


def test_a_scan_is_told_by_its_contents_and_those_of_the_files_that_it_leads_to(tmp_path, monkeypatch):
    folder = tmp_path / "here"
    (folder / "frames").mkdir(parents=True)
    with h5py.File(folder / "frames" / "data.h5", "w") as file:
        file["data"] = np.arange(5)
    with h5py.File(folder / "master.h5", "w") as file:
        file["data"] = h5py.ExternalLink("frames/data.h5", "/data")
    digest, entries = Contents().of(folder / "master.h5")
    assert sorted(os.path.basename(path) for path in entries) == ["data.h5", "master.h5"]
    folder = folder.rename(tmp_path / "there")
    (folder / "master.h5").rename(folder / "renamed.h5")
    assert Contents().of(folder / "renamed.h5")[0] == digest
    known = Contents()
    known.remember(Contents().of(folder / "renamed.h5")[1])
    with monkeypatch.context() as patched:  # nothing is read again
        patched.setattr("builtins.open", None)
        patched.setattr("pendel.io.kinds.linked_files", None)
        assert known.of(folder / "renamed.h5")[0] == digest
    os.utime(folder / "frames" / "data.h5", (1, 1))
    assert known.of(folder / "renamed.h5")[0] == digest
    with h5py.File(folder / "frames" / "data.h5", "a") as file:
        file["data"][2] = 7
    assert known.of(folder / "renamed.h5")[0] != digest
    whole = known.of(folder)[0]
    (folder / "frames" / "more").write_bytes(b"")
    assert known.of(folder)[0] != whole


def test_the_examples_of_the_docs_are_campaigns(tmp_path):
    (tmp_path / "run.toml").write_text(kills.CONFIG)
    for name in ("data/scan_9.cxi", "data/scan_10.cxi", "data/cold_1.cxi", "data/hot.cxi", "sample.h5"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    page = (Path(__file__).parents[1] / "docs" / "campaign.md").read_text()
    few, many = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    (tmp_path / "few.toml").write_text(few)
    assert [job.name for job in files_of.load(tmp_path / "few.toml").jobs] == ["run/scan_9", "run/scan_10"]
    (tmp_path / "many.toml").write_text(many)
    made = files_of.load(tmp_path / "many.toml")
    assert made.workers == 4 and made.labels == ["temperature", "sample"] and len(made.jobs) == 2 * (2 + 30)
    assert made.jobs[1].made.data.crop == (96, 96) and made.jobs[-1].name == "counts/sample_45"
