"""Speed measurements: two ways of doing the same work, side by side in one run, as ratios (``make bench``)."""
