"""Desired state in, kernel resources out.  One module per feature, all of them pure."""
