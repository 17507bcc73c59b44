# %% [markdown]
# # 34-ID-C: from a result of cohere to a crystal without refraction in it
#
# A gold crystal of 560 nm, (111) at 9 keV, is scanned as at 34-ID-C of the APS. cohere phases the frames; pendel
# takes that object as its start, fits the frames dynamically, and hands the crystal back as files that cohere opens.
# The frames are simulated, so that the crystal is known, and few, by the model that also fits them: this page shows
# the way, and not how far it is right, which is on the page "Results", for frames of other optics. With a measured
# scan the second cell becomes `scan = pendel.io.read_34idc(...)` and `experiment = pendel.Experiment.from_scan(scan)`.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pendel
from pendel import cohere, kinematic

config = pendel.config.loads("""
[experiment]
energy_keV = 9.0
distance_mm = 530.0
pixel_um = 55.0
arm = [["y+", 31.7], ["x-", 13.0]]  # delta and gamma
rocking_axis = "y+"                 # theta
rocking_step_deg = 0.01
rocking_frames = 24
detector_shape = [24, 24]

[crystal]
material = "Au"
hkl = [1, 1, 1]

[model]
voxel_nm = "data"

[simulate]
maker = "model"
size_nm = 560.0
rotation_deg = [10, 20, 30]
strain = "bumps"
strength = 1.5
photons = 1e6
""")

# %% [markdown]
# ## The scan

# %%
model = pendel.simulate.model_of(config)  # experiment, crystal, and a grid that holds it
data, mask, truth, *_ = pendel.simulate.simulated(config, model)
experiment = model.experiment
print(experiment, model.crystal, sep="\n")

# %% [markdown]
# ## Phased by cohere
#
# Frames go to cohere as amplitudes in its own order of axes. Where cohere-core is not installed (`pip install
# 'pendel[cohere]'`) this cell says so, and pendel's own HIO and ER write files of the same kind.

# %%
work = Path(tempfile.mkdtemp())
results = work / "results_phasing"
cohere.write_data(work / "data.npy", data, mask)
try:
    from cohere_core.controller import phasing
except ImportError as error:
    print(f"cohere-core is not here ({error}): phased by pendel.kinematic.phase, saved as cohere would have it")
    found = kinematic.phase(data, mask, iterations=300)
    results.mkdir()
    np.save(results / "image.npy", found.object.conj().transpose(2, 1, 0))
    np.save(results / "support.npy", found.support.astype(int).transpose(2, 1, 0))
else:
    parameters = {
        "algorithm_sequence": "2*(20*ER+80*HIO)+40*ER",
        "initial_support_area": [0.6, 0.6, 0.6],
        "hio_beta": 0.9,
    }
    parameters |= {"shrink_wrap_trigger": [10, 5], "shrink_wrap_type": "GAUSS", "shrink_wrap_threshold": 0.2}
    worker = phasing.create_rec(
        parameters | {"shrink_wrap_gauss_sigma": 1.0}, str(work / "data.npy"), "np", -1, debug=True
    )
    worker.iterate()
    worker.save_res(str(results))

# %% [markdown]
# ## Its object as a start
#
# `read_results` knows axes and signs, finds by how many pixels cohere has moved the pattern, and refuses an object
# of other data. The object, its twin and flat phases in its support are each tried for some epochs, and the best one
# is fitted. `pendel.solve(experiment, crystal, data, mask, start=phased)` does all of that and more, on finer
# voxels, in a minute or two.

# %%
phased = cohere.read_results(results, experiment, data, mask)
start = pendel.kinematic_start(model, data, mask, phased=phased, progress=False)
result = pendel.reconstruct(model, data, mask, start.S, start.support, epochs=120, progress=False)
print(f"misfit of the frames: kinematic {phased.chi**2:.4f}, dynamical {result.misfit:.5f}")

# %% [markdown]
# ## What refraction was
#
# Both objects beside the crystal that was simulated, each at its best: the better twin, freed of a linear phase. The
# dynamical one has not ended here: the crystal is ten voxels wide, the fit is short, and its support is what phasing
# has told. `solve` looks after all three.

# %%
inside = np.abs(truth) > 0.5
theirs = kinematic.to_model_grid(phased, experiment, model.shape, model.voxel, clip=False)
compared = {
    "cohere": pendel.compare(theirs, truth, model.voxel, inside, ramp=True, twin=True),
    "pendel": pendel.compare(result.S, truth, model.voxel, inside, ramp=True, twin=True),
}
assert result.misfit < phased.chi**2

# %%
nm, middle = 1e9, truth.shape[1] // 2
extent = [
    n * v * nm / 2 * side
    for n, v in ((truth.shape[2], model.voxel[2]), (truth.shape[0], model.voxel[0]))
    for side in (-1, 1)
]
mean = np.angle(truth[inside].sum())
figure, axes = plt.subplots(2, 3, figsize=(10, 5.6), layout="constrained", sharex=True, sharey=True)
maps = {"phase simulated": truth, "phase of cohere's object": compared["cohere"].registered}
maps |= {"phase of pendel's crystal": compared["pendel"].registered}
for axis, (title, S) in zip(axes[0], maps.items(), strict=True):
    shown = np.where(inside, np.angle(S * np.exp(-1j * mean)), np.nan)[:, middle]
    image = axis.imshow(shown, origin="lower", extent=extent, cmap="twilight_shifted", vmin=-1.5, vmax=1.5)
    axis.set_title(title, fontsize=10)
figure.colorbar(image, ax=axes[0], label="rad", shrink=0.9)
for axis, told in zip(axes[1, 1:], compared.values(), strict=True):
    shown = np.where(inside, np.angle(told.registered * truth.conj()), np.nan)[:, middle]
    image = axis.imshow(shown, origin="lower", extent=extent, cmap="RdBu_r", vmin=-0.5, vmax=0.5)
    axis.set(title="less that simulated", xlabel="x, nm")
figure.colorbar(image, ax=axes[1], label="rad", shrink=0.9)
axes[1, 0].axis("off")
axes[1, 1].set_ylabel("z, nm")
axes[0, 0].set_ylabel("z, nm")
pictures = Path(globals().get("__file__", "here")).parent / "pictures"
pictures.mkdir(exist_ok=True)
figure.savefig(pictures / "cohere_34idc.png", dpi=110)

# %% [markdown]
# ## And back
#
# cohere's viewer opens the crystal, and its phasing goes on from it (`continue_dir`).

# %%
cohere.write_results(work / "refined" / "results_phasing", result, experiment, like=results)
print(sorted(path.name for path in (work / "refined" / "results_phasing").iterdir()))
