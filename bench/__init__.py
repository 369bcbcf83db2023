"""Measurements. Each module is a program, and this is where all of them start: what they print is theirs."""

from model_core.quiet import quiet_libraries

quiet_libraries()
