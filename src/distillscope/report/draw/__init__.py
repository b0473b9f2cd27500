"""Figures drawn: matplotlib for files, Plotly for the page."""
