"""Real faults under real load, and what the people in front of the service notice of them."""
