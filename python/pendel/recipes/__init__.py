"""Whole ways from a scan to its crystal, made of phasing and fits."""
