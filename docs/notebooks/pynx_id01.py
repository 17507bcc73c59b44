# %% [markdown]
# # ID01: a platinum particle that PyNX has phased
#
# Platinum (111) at 9 keV, as at ID01 of the ESRF. PyNX phases the frames and writes a CXI file on the grid of its
# data; pendel brings that object to the crystal's own axes, says how much of its phase is refraction and extinction,
# and fits the frames dynamically from there. The frames are simulated, and few, by the model that also fits them: the
# way is shown, and not how far it is right. With a measured scan the first cell becomes `scan =
# pendel.io.read_id01(...)` and `experiment = pendel.Experiment.from_scan(scan)`.

# %%
import tempfile
from pathlib import Path

import h5py
import numpy as np
import pendel
from pendel import kinematic, pynx
from pendel.planning.pictures import check_figure

config = pendel.config.loads("""
[experiment]
energy_keV = 9.0
distance_mm = 400.0
pixel_um = 55.0
arm = [["y-", 0.5], ["x-", 35.4]]  # nu and delta
rocking_axis = "x-"                # eta
rocking_step_deg = 0.0125
rocking_frames = 24
detector_shape = [24, 24]

[crystal]
material = "Pt"
hkl = [1, 1, 1]

[model]
voxel_nm = "data"

[simulate]
maker = "model"
shape = "truncated_octahedron"
size_nm = 340.0
strain = "bumps"
strength = 1.0
photons = 1e6
""")
model = pendel.simulate.model_of(config)
data, mask, truth, *_ = pendel.simulate.simulated(config, model)
experiment = model.experiment
print(experiment, model.crystal, sep="\n")

# %% [markdown]
# ## The file of a run
#
# PyNX, which is not in the package index, is run by its own command, `pynx-cdi-id01 data=scan.cxi`, and need not be
# here: its file is all that is read. Where there is none, this cell phases the frames by pendel's HIO and ER and
# writes the datasets that a run of PyNX has.

# %%
run = Path("run.cxi")
if run.exists():
    print(f"{run}: of PyNX")
else:
    run = Path(tempfile.mkdtemp()) / "run.cxi"
    print("no run.cxi of PyNX here: phased by pendel.kinematic.phase, saved as PyNX would have it")
    found = kinematic.phase(data, mask, iterations=200)
    with h5py.File(run, "w") as file:
        file["entry_1/image_1/data"], file["entry_1/image_1/mask"] = found.object, found.support.astype(np.int8)

# %% [markdown]
# ## Its object, on the crystal's axes
#
# The file says nothing of angles and distances: the experiment does.

# %%
phased = pynx.read_results(run, experiment, data, mask)
S = kinematic.to_model_grid(phased, experiment, model.shape, model.voxel)
told = pendel.check(pendel.io.StoredResult(S, S != 0, model.voxel), experiment=experiment, crystal=model.crystal)
print(told)

# %% [markdown]
# ## Dynamically, from there

# %%
start = pendel.kinematic_start(model, data, mask, phased=phased, trial_epochs=8, progress=False)
result = pendel.reconstruct(model, data, mask, start.S, start.support, epochs=40, progress=False)
print(f"misfit of the frames: kinematic {phased.chi**2:.4f}, dynamical {result.misfit:.5f}")
assert result.misfit < phased.chi**2
pynx.write_results(run.with_name("refined.cxi"), result, experiment, like=run)  # object=refined.cxi support=refined.cxi

# %% [markdown]
# ## What a sweep of the object says
#
# Phase and strain that refraction and extinction have put into the object that was phased, beside its own.

# %%
figure = check_figure(told)
pictures = Path(globals().get("__file__", "here")).parent / "pictures"
pictures.mkdir(exist_ok=True)
figure.savefig(pictures / "pynx_id01.png", dpi=90, facecolor="white")
