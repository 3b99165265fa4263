"""From scores to a subset: signals, density, criteria, budgets, topics. No torch."""
