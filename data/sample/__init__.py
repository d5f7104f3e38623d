"""Drawn pictures of cats, dogs and other things, with numpy and Pillow only.

The files read in this order: outlines, sketch, coats, heads, cats and dogs, animals,
things, scenery, picture, snapshot. This folder imports nothing else of edgegraft;
`data/sample/sample.py` makes a photo folder of what it draws.
"""
