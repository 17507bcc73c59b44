"""What kinematic phasing makes of a crystal: told before the beamtime, and of a crystal that was found.

kinematic_image     a crystal as all frames together show it, by one forward sweep
kinematic_error     its phase and strain beside the crystal's: refraction and extinction
error_law           the same for a usual crystal, from three numbers
plan                `pendel.plan`: lengths, sizes, the scan, other reflections; with reflections, rocking
check               `pendel.check`, of a finished object
pictures            of both
"""
