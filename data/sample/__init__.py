"""Drawn pictures of cats, dogs and other things, with numpy and Pillow only.

The files read in this order: outlines, sketch, coats, heads, cats and dogs, animals,
things, scenery, picture, picture_files, sample_set; faults spoils some on purpose.
"""
