"""The page of a comparison: its head, and its sections: what differs, how it looks, and what was set otherwise.

A section is a function here, registered in `COMPARISON`, and the template of its name in report/templates/compare.
"""
