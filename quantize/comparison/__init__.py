"""Model files measured against each other, and which one to ship."""
