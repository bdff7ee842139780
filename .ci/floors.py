"""Print the oldest versions that setup.cfg allows, as constraints for pip."""

import configparser
import re

config = configparser.ConfigParser()
config.read("setup.cfg")
extras = config["options.extras_require"]
requirements = [
    config["options"]["install_requires"],
    *map(extras.get, ("tensorflow", "fast", "bench")),
]
for name, version in re.findall(r"^([\w.-]+) >=([\d.]+)", "\n".join(requirements), re.MULTILINE):
    print(f"{name}=={version}.*")
