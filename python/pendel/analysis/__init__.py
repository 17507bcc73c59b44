"""What was found, judged and drawn.

comparison          how far a crystal is from the truth (`pendel.compare`)
resolution          FSC and PRTF
plot, slices        pictures
phantom             test crystals on a grid
crystals            sample crystals as functions of position, of bodies and strain_fields
rocking_scans       frames of them by `pendel.reference.wide_angle`, at several beamlines
disturbances        what beamlines add to frames
"""
