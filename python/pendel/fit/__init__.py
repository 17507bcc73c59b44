"""Fitting a crystal function to frames: the objective, and what minimises it."""
