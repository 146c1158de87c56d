"""Where the contract of a benchmark was: plug-in files import it from here, and count by their content."""

from stic_eval.contracts.benchmark import *  # noqa: F403
