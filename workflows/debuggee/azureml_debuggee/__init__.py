"""Makes a Python process one that a debugger can attach to, at no cost until one does.

`session.start()` is the way in; see there.
"""
