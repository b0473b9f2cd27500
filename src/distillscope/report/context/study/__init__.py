"""The study's page: its head, and its sections in the order in which a reader asks.

What was lost, does it matter, why, what to change, and is it to be believed? A section is a function here, registered in
`STUDY`; its template is the one of its name in report/templates/study, unless it names one that sections share.
"""
