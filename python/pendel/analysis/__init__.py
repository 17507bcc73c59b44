"""What was found, judged and drawn: comparison, resolution, pictures, test crystals."""
