"""How well scores and forecasts foretold growth: panels, targets, baselines, measures and their intervals."""
