"""What the whole system agrees on: events, revenue, the HTTP contract. Pure, knows nobody."""
