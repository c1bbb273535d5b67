"""The contenders, one module each; roster.py lists them."""
