"""A calibration for a site, with the figures before and after."""
