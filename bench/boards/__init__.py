"""Devices without Python: phones behind adb that run benchmark programs, and programs that speak a protocol."""
