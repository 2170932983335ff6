"""A page and figures of what came of runs: curves, mistakes, calibration."""

from vit_jax.run_report.pictures import METHODS
from vit_jax.run_report.settings import Settings, as_options
from vit_jax.run_report.writing import Report, write_report

__all__ = ['METHODS', 'Report', 'Settings', 'as_options', 'write_report']
