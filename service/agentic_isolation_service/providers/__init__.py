"""Providers: they make places and open byte streams to the guests in them."""
