"""Ways to win back what int8 loses, cheapest first."""
