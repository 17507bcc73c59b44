"""What was found, judged and drawn.

comparison          how far a crystal is from the truth (`pendel.compare`)
resolution          FSC and PRTF
plot                pictures
phantom             test crystals
"""
