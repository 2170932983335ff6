"""Builds and describes the `vit_jax` package; tool settings: pyproject.toml."""

import pathlib
import re

from setuptools import find_packages, setup

_ROOT = pathlib.Path(__file__).parent
_VERSION = re.search(
  r"^__version__ = '(.+)'$",
  (_ROOT / 'vit_jax/__init__.py').read_text(encoding='utf-8'),
  re.MULTILINE,
)
assert _VERSION, 'vit_jax/__init__.py states no version'

# From the oldest version that the tests were run with to the next one that may
# break what it promises: a minor release before 1.0, a major one after.
_CORE = [
  'absl-py>=2.5.1,<3',
  'array-record>=0.8.6,<0.9',
  'clu>=0.0.12,<0.1',
  'filelock>=4.2.11,<5',
  'flax>=0.12.8,<0.13',
  'google-crc32c>=1.9.0,<2',
  'grain>=0.2.18,<0.3',
  'huggingface-hub>=2.4.0,<3',
  'importlib_resources>=7.1.0,<8',  # tensorflow-datasets forgets to ask for it.
  'jax>=0.10.2,<0.13',
  'jaxtyping>=0.3.11,<0.4',
  'matplotlib>=3.11.2,<4',
  'ml-collections>=1.1.0,<2',
  'ml-dtypes>=0.6.0,<0.7',
  'numpy>=2.4.6,<3',
  'opencv-python-headless>=5.0.0.93,<6',
  'optax>=0.2.8,<0.3',
  'optuna>=5.0.0,<6',
  'orbax-checkpoint>=0.12.8,<0.13',
  'pillow>=13.0.0,<14',
  'protobuf>=7.36.2,<8',
  'pyarrow>=26.0.1,<27',
  'requests>=2.34.2,<3',
  'rich>=15.0.0,<16',
  'scikit-learn>=1.9.1,<2',
  'scipy>=1.17.1,<2',
  'tensorboardX>=2.6.5,<3',
  'tensorflow-datasets>=4.9.10,<4.10',
  'urllib3>=2.8.0,<3',
]
_TEST = [
  'beartype>=0.23.1,<0.24',
  'pytest>=9.2,<10',
  'safetensors>=0.8.0,<0.9',  # That others can read what we write.
]
# Drives the Chromium of the system, in which the pages are tried.
_BROWSER = ['selenium>=4.51,<5']
# Runs notebooks/attention.ipynb; any editor of notebooks shows it.
_NOTEBOOK = ['ipykernel>=7.4.0,<8', 'nbclient>=0.11.0,<0.12']
_LINT = [
  'pre-commit>=4.7,<5',
  'pyright[nodejs]==1.1.414',  # Each release finds something new.
  'ruff>=0.17.5,<0.18',
]

setup(
  name='vit_jax',
  version=_VERSION[1],
  description="Vision Transformers in JAX and Flax, on Google's checkpoints",
  license='Apache-2.0',
  license_files=['LICENSE'],
  # `configs` and `scripts` are used from the checkout.
  packages=find_packages(include=['vit_jax', 'vit_jax.*']),
  package_data={
    'vit_jax.attention_report.explorer': ['page.*', '*.js'],
    'vit_jax.checkpoint_evaluation': ['*.json'],
    'vit_jax.class_names': ['*.tsv', 'NOTICE.md'],
    'vit_jax.reproduction': ['published.json'],
    'vit_jax.run_report': ['page.*'],
  },
  python_requires='>=3.11',
  install_requires=_CORE,
  extras_require={
    # CUDA 13 needs a driver of 580 or newer and a GPU of the Turing generation
    # or newer; for older ones install 'jax[cuda12]' beside the core.
    'cuda': ['jax[cuda13]'],
    'tpu': ['jax[tpu]'],
    # Weights in private buckets, with the user's credentials.
    'gcs': ['gcsfs>=2026.10.1,<2027'],
    'test': _TEST,
    'browser': _BROWSER,
    'notebook': _NOTEBOOK,
    'dev': _TEST + _BROWSER + _LINT,
  },
)
