"The package's metadata, read from settings.ini. Needs setuptools alone; pip 23 and later build from it without a pyproject.toml."
from configparser import ConfigParser
from pathlib import Path

from setuptools import find_namespace_packages, setup

HERE = Path(__file__).resolve().parent
STATUS = {"1": "1 - Planning", "2": "2 - Pre-Alpha", "3": "3 - Alpha", "4": "4 - Beta", "5": "5 - Production/Stable"}
LICENSES = {"apache2": "Apache-2.0"}

ini = ConfigParser(delimiters=["="])
if not ini.read(HERE / "settings.ini", encoding="utf-8"): raise SystemExit(f"{HERE / 'settings.ini'} is missing: run pip in the folder of the checkout")
cfg = ini["DEFAULT"]
readme = HERE / "README.md"
name = cfg["lib_name"]
extras = {group: cfg[f"{group}_requirements"].split() for group in ("evaluate", "explore", "export")}

setup(
    name=name,
    version=cfg["version"],
    description=cfg["description"],
    long_description=readme.read_text(encoding="utf-8") if readme.exists() else cfg["description"],
    long_description_content_type="text/markdown",
    author=cfg["author"],
    author_email=cfg["author_email"],
    url=cfg["git_url"],
    license=LICENSES[cfg["license"]],
    keywords=cfg["keywords"],
    classifiers=[
        f"Development Status :: {STATUS[cfg['status']]}",
        f"Intended Audience :: {cfg['audience']}",
        f"Natural Language :: {cfg['language']}",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    packages=find_namespace_packages(include=[name, f"{name}.*"], exclude=["*.__pycache__"]),  # dpgan.weights, dpgan.static and dpgan.results hold files only
    include_package_data=True,  # what MANIFEST.in names inside the package
    python_requires=f">={cfg['min_python']}",
    install_requires=cfg["requirements"].split(),
    extras_require={**extras, "dev": [r for group in extras.values() for r in group] + cfg["dev_requirements"].split()},
    entry_points={"console_scripts": cfg["console_scripts"].split(), "nbdev": [f"{name}={name}._modidx:d"]},  # the second: the site links names to their pages
    zip_safe=False,
)
