"""Measurements, side by side with what people use now. `make bench` runs them; docs/performance.md explains them."""
