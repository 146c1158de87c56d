"""Where the contract of a method was: plug-in files import it from here, and count by their content."""

from stic_eval.contracts.method import *  # noqa: F403
