"""Every test of this directory may ask for `celonis_emulator`."""

pytest_plugins = ["celonis_emulator.testing"]
