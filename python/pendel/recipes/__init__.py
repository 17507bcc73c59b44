"""Whole ways from a scan to its crystal, made of phasing and fits.

solve               `pendel.solve`, the whole way, which chooses what is not given
voxels, in_band     how fine voxels have to be for the light, and what of a crystal is carried to them
coarse_to_fine      `pendel.multiscale`, on one screen; its numbers are in multiscale_recipe
levels              the scan on wider voxels, and crystals brought to finer ones
starts              how the coarsest level comes to its crystal: a table
kinematic_starts    phasing, and trials of what it found and of its twin (`pendel.kinematic_start`)
searches            minibatch Adam on a level; which twin to go on with
fine, trust         the last step of `solve`, the crystal beside its twin; how far what is found can be trusted
thick_crystals      searches between which a crystal is made perfect, for an extinction length and more
polisher, placing   rounds of polish, and where between the voxels the crystal stands (`pendel.place`)
"""

from ..base.later import later as _later

# Modules are attributes before anybody has imported them: programs say `pendel.recipes.smooth_phases`.
__getattr__, __dir__ = _later(__name__)
