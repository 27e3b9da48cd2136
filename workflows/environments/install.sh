#!/bin/sh
# Makes the environment of an image from the files beside this script, inside `docker build`.
#   install.sh [PREFIX]       PREFIX is /opt/env unless given
# Where the host could make the environment itself, the image's python3 gets its packages as they are.
# Else conda, where the image has it, makes it from conda.yml; else it is a virtual environment of the
# image's python3 and pip installs conda's packages as well (requirements-all.txt).
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
prefix=${1:-/opt/env}
cd "$here"

if [ -f packages-added ]; then
    # A later instruction of the Dockerfile adds the packages.
    python3 -m venv --without-pip "$prefix"
    exit
fi

if [ -f environment.tar ]; then
    python3 -m venv --without-pip "$prefix"
    # Files keep their times, by which byte code is valid.
    tar -xf environment.tar -C "$prefix" || python3 -m tarfile -e environment.tar "$prefix"
    exit
fi

conda=
for name in conda mamba micromamba /opt/conda/bin/conda /opt/miniconda/bin/conda; do
    if command -v "$name" >/dev/null 2>&1; then
        conda=$name
        break
    fi
done

requirements=requirements-all.txt
if [ -n "$conda" ] && [ -f conda.yml ]; then
    requirements=requirements.txt
    case $conda in
        *micromamba) "$conda" create --yes --prefix "$prefix" --file conda.yml ;;
        *) "$conda" env create --quiet --prefix "$prefix" --file conda.yml ;;
    esac
else
    python=$(command -v python3 || command -v python) || {
        echo "ERROR: the base image has neither python3 nor conda" >&2
        exit 1
    }
    "$python" -m venv "$prefix" || {
        echo "ERROR: the base image's Python cannot make virtual environments: it lacks python3-venv" >&2
        exit 1
    }
fi

pip() {
    "$prefix/bin/python" -m pip --disable-pip-version-check --no-input install \
        --no-cache-dir --progress-bar off "$@"
}

if [ -f live ]; then
    # Packages that a container has mounted later, at the paths of the machine that builds.
    while IFS="$(printf '\t')" read -r copy path; do
        mkdir -p "$path"
        cp -R "$copy/." "$path/"
    done <live
fi

if [ -d wheelhouse ]; then
    # Made by the host's pip from the same requirements: no index and no network is needed here.
    pip --no-index --find-links wheelhouse wheelhouse/*.whl
else
    pip -r "$requirements"
    if [ -f requirements-added.txt ]; then
        pip -r requirements-added.txt
    fi
fi
