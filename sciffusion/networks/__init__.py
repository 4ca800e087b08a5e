"""Networks from noisy fields to answers, torch only: told their boundaries by name, never a Grid."""
