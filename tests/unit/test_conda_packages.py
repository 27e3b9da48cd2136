"""Packages and Pythons of conda files, as pip and this machine have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from workflows.environments.conda_packages import parse_package, satisfies, translate_package


@pytest.mark.parametrize(
    ("written", "for_pip_"),
    [
        ("numpy", "numpy"),
        ("numpy=1.26", "numpy==1.26.*"),
        ("numpy=1.26.*", "numpy==1.26.*"),
        ("numpy==1.26.4", "numpy==1.26.4"),
        ("numpy 1.26.4", "numpy==1.26.4"),
        ("numpy 1.26.*", "numpy==1.26.*"),
        ("numpy >=1.20, <2", "numpy>=1.20,<2"),
        ("numpy>=1.20,!=1.21", "numpy>=1.20,!=1.21"),
        ("numpy=1.26=py311_0", "numpy==1.26.*"),
        ("conda-forge::scikit-learn=1.4", "scikit-learn==1.4.*"),
        ("numpy=*", "numpy"),
        ("pytorch=2.1", "torch==2.1.*"),
        ("numpy=1.25|1.26", "numpy"),
        ("python=3.9", None),
        ("pip", None),
        ("libgcc-ng=12", None),
        ("_openmp_mutex", None),
        ("setuptools", "setuptools"),
    ],
)
def test_condas_packages_for_pip(written: str, for_pip_: str | None) -> None:
    package = parse_package(written, Path("conda.yml"), 1)
    assert package is not None
    assert translate_package(package)[0] == for_pip_


@pytest.mark.parametrize(
    ("version", "constraint", "expected"),
    [
        ((3, 11, 7), "", True),
        ((3, 11, 7), "=3.11", True),
        ((3, 11, 7), "=3.1", False),
        ((3, 11, 7), "==3.11", True),
        ((3, 11, 7), "==3.11.4", False),
        ((3, 11, 7), "3.11.*", True),
        ((3, 11, 7), ">=3.9,<3.11", False),
        ((3, 11, 7), ">=3.9,<3.12", True),
        ((3, 11, 7), "<=3.11", True),
        ((3, 11, 7), ">3.11", False),
        ((3, 12, 0), ">3.11", True),
        ((3, 11, 7), "!=3.11.*", False),
        ((3, 11, 7), "~=3.9", True),
        ((3, 11, 7), "=3.9|=3.11", True),
        ((3, 11, 7), "nonsense!", True),
    ],
)
def test_python_constraints(version: tuple[int, ...], constraint: str, expected: bool) -> None:
    assert satisfies(version, constraint) is expected
