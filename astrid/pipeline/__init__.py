"""The use cases, as plain async functions: plan, crawl, score, and the night that joins them."""
