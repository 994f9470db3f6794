"""Who Belfry is measured against: each written fairly, as the documentation of its libraries would have it."""
