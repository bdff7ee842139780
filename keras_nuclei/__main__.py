"""`python -m keras_nuclei`, the same as the command `keras-nuclei`."""

import sys

from keras_nuclei.command import main

sys.exit(main())
