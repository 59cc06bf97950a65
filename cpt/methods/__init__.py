"""Methods, one module each; the registry finds them by module name.

A method that ships also has a variant in ``config/variants.yaml``, its published settings in
``tests/methods/test_published_settings.py``, and a section of ``docs/methods.md`` (``make generated``).
"""
