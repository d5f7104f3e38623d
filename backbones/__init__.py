"""Networks to graft onto: the custom CNN and pretrained feature extractors."""
