"""Did it help? Arms, what is measured, intervals, price, the search for a setting."""
