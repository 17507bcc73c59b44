"""What every room uses and what uses none: checks of arguments, arrays of host and device, progress, the version."""
