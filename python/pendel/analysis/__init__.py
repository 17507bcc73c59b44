"""What was found, judged and drawn.

comparison          how far a crystal is from the truth (`pendel.compare`)
resolution          FSC and PRTF
statistics          how large and how strained
plot, slices        pictures
phantom             test crystals on a grid
crystals            sample crystals as functions of position, of bodies and strain_fields
rocking_scans       frames of them by `pendel.reference.wide_angle`, at several beamlines
disturbances        what beamlines add to frames
"""

from ..base.later import later as _later

# Modules are attributes before anybody has imported them: programs say `pendel.analysis.plot`.
__getattr__, __dir__ = _later(__name__)
