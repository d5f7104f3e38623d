"""Drawn pictures of cats, dogs and other things, with numpy and Pillow only.

The files read in this order: sketch, heads, animals, scenery, picture, sample_set.
"""
