"""What the zoo's features cost: ratios to plain baselines, measured side by side."""
