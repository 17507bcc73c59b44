"""The command line and what stands behind it.

cli, commands       the command line's options; what the commands do
planning            pendel plan and check
config, schema      configuration files, and their keys
methods, starts     the algorithms and the starts that a configuration can name: tables
samples             the crystals that a configuration can name
simulate, demo      simulated scans, and the whole story on one
store               what a run leaves behind
"""
