"""The command line and what stands behind it: configuration, simulation, the demo, result files."""
