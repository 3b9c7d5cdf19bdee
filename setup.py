"""The part in C; without a compiler it is left out, and masks take longer to read."""

from setuptools import Extension, setup

UNFILTER = Extension(
    "dataset_rules.pixels._unfilter",
    ["dataset_rules/pixels/_unfilter.c"],
    py_limited_api=True,
    optional=True,
)

setup(ext_modules=[UNFILTER], options={"bdist_wheel": {"py_limited_api": "cp311"}})
