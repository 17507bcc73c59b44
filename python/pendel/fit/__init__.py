"""Fitting a crystal function to frames: the objective, and what minimises it.

objective           what is minimised, and S to begin with
minibatch           Adam on groups of frames (`pendel.reconstruct`), with adam, kernels
quasi_newton        the L-BFGS driver, and `pendel.lbfgs`
polishing, priors   `pendel.polish`: L-BFGS with what is known of crystals, with evidence for counted data
total_variation     `pendel.atv`
refinement          rocking angles and incident intensities
checkpoint, result  what is kept

Where |S| is bounded, by ``amplitude_bound`` (1 if not said otherwise):

- what every fit begins with: `objective.begun`, by `objective.bounded`
- Adam: after every step, `minibatch._step`, by `objective.bounded` (steps of S on a device by the kernel STEP)
- L-BFGS, `lbfgs`: a box for the variable a = +-|S|, `quasi_newton.Polar`
- L-BFGS, `polish`: a penalty, `priors.Priors`; |S| may exceed the bound a little

`multiscale` polishes with the bound it is given. 1, whatever that is, bounds its searches, a kinematic start
(`pendel.kinematic.to_model_grid`), a start made steeper for a finer level (`pendel.recipes.levels.sharpen`) and a
crystal moved by half a voxel (`pendel.recipes.placing.half_step`).
"""

from ..base.later import later as _later

# Modules are attributes before anybody has imported them: programs say `pendel.fit.polishing`.
__getattr__, __dir__ = _later(__name__)
