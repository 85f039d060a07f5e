"""The examples in the package's docstrings run and print what they say."""

import doctest
import importlib
import importlib.util
import pkgutil

import pytest

import tapegrad as tg

FINDER = doctest.DocTestFinder(exclude_empty=True)
NEEDS = {"tapegrad.utils.tensorboard": "tensorboard"}  # modules that stand for a package which may not be there
MODULES = ["tapegrad", *(module.name for module in pkgutil.walk_packages(tg.__path__, "tapegrad."))]
MODULES = [name for name in MODULES if name not in NEEDS or importlib.util.find_spec(NEEDS[name])]


def examples(module):
    """The docstrings of a module's own functions and classes that hold examples."""
    return [test for test in FINDER.find(importlib.import_module(module)) if test.examples]


TESTS = {test.name: test for module in MODULES if not module.endswith("._C") for test in examples(module)}


@pytest.mark.parametrize("name", TESTS)
def test_docstring_example(name):
    output = []
    test = TESTS[name]
    failed, attempted = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(test, out=output.append)
    assert attempted == len(test.examples)
    assert failed == 0, "".join(output)


def test_the_packages_first_example_is_among_them():
    assert "tapegrad" in TESTS
    assert any(name.startswith("tapegrad.core.op") for name in TESTS)
