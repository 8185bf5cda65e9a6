"""What importing the package brings in, and what it must not."""

import subprocess
import sys

IMPORT_ALL = """
import importlib, importlib.abc, pkgutil, sys

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("tensorflow", "torch"):
            raise RuntimeError(f"{name} was imported")

sys.meta_path.insert(0, Refuse())
import cnnjax

names = [module.name for module in pkgutil.walk_packages(cnnjax.__path__, "cnnjax.")]
for name in names:
    importlib.import_module(name)
print(len(names))
"""


def test_no_module_imports_tensorflow_or_torch():
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 50
